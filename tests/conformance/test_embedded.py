"""The embedded provider keeps what the suite asks, with either engine; the page says what the suite asks."""

from __future__ import annotations

import pytest

from conformance.breaches import ask
from conformance.breakpoint_questions import ask_with_breakpoints
from conformance.differences import DIFFERENCES, compare
from conformance.document import DOCUMENT, document
from conformance.expected import expected
from conformance.questions import ask_all


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_every_question_is_answered_as_expected(engine: str) -> None:
    if engine == "regions":
        pytest.importorskip("llvmlite")
    assert ask_all("embedded", engine) == expected()


@pytest.mark.parametrize("engine", ["concrete", "regions"])
def test_a_debugger_has_its_breakpoints_and_steps(engine: str) -> None:
    answers = ask_with_breakpoints("embedded", engine)
    steps = answers["single_steps"]
    at = [0x4, 0x8, 0x8, 0xC, 0x10, 0x14, 0x18, 0x20, 0x34, 0x38, 0x3C, 0x24, 0x28]
    assert steps["plain and branches"] == [*(f"stepped to {address:#x}" for address in at), "HcallExit"]
    assert (steps["counter"], steps["link"], steps["counted"]) == (0, 0x24, [2, 6])
    assert (steps["one that is taken leads to"], steps["a system call leads to"]) == (0x700, 0xC00)
    assert answers["breakpoints"] == {
        "the first": "breakpoint at 0x4",
        "memory is the guest's own": True,
        "what was executed": 0,
        "the second": "breakpoint at 0xc",
        "what was executed then": 1,
        "a step over it": "stepped to 0x4",
        "the next turn": "breakpoint at 0xc",
        "what was executed by then": 2,
        "without": "HcallExit",
        "in the end": 3,
    }


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
