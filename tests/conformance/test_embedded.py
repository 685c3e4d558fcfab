"""The embedded provider keeps what the suite asks, with either engine; the page says what the suite asks."""

from __future__ import annotations

import pytest

from conformance.breaches import ask
from conformance.differences import DIFFERENCES, compare
from conformance.document import DOCUMENT, document
from conformance.expected import expected
from conformance.questions import ask_all


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_every_question_is_answered_as_expected(engine: str) -> None:
    if engine == "regions":
        pytest.importorskip("llvmlite")
    assert ask_all("embedded", engine) == expected()


def test_no_expected_answer_breaks_a_promise() -> None:
    answers = expected()
    broken = [f"{name}: {item}" for name, said in answers.items() for item in said if said[item] is False]
    assert not broken
    assert sum(map(len, answers.values())) > 150
    for difference in DIFFERENCES:
        assert answers[difference.question][difference.item] == difference.embedded, difference


def test_a_difference_is_found_whether_it_is_listed_or_not() -> None:
    both = {"time": {"forward": True, "at first": 0}}
    every = [f"{d.question}: {d.item}: listed and never asked" for d in DIFFERENCES]
    assert compare(both, both) == every
    assert "time: forward: embedded True, the kernel False" in compare(
        both, {"time": {**both["time"], "forward": False}}
    )
    assert "time: forward: embedded True, the kernel None" in compare(both, {"time": {"at first": 0}})
    listed = DIFFERENCES[0]
    same = {listed.question: {listed.item: listed.embedded}}
    assert any("the table says" in line for line in compare(same, same))


def test_the_page_is_made_of_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "make it anew: cd tests && python -m conformance.document"


def test_deadlines_stay_where_they_are() -> None:
    assert ask("expiry_after_many_exits", "embedded")["moved"] == 0
    assert ask("deadline_moved_after_a_cede", "embedded")["early by"] == 0
