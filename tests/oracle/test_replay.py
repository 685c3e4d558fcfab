"""The concrete evaluator gives the answers that QEMU gave: fifty thousand of them, kept as data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import Instruction

from .campaign import Report, compare
from .generate import drawn
from .ours import Evaluator
from .qemu_errata import compared, is_exempt
from .store import Answer, count, load

DATA = Path(__file__).parent / "data"
FILES = sorted(DATA.glob("*.xz"))


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_answers_are_ours_too(path: Path, evaluator: Evaluator) -> None:
    report = Report()
    cases, answers = zip(*load(path), strict=True)
    compare(list(cases), list(answers), evaluator, report)
    assert not report.mismatches, report.summary()
    assert report.cases == sum(count(path).values())
    assert not report.lacks


def test_fifty_thousand_answers_in_both_byte_orders() -> None:
    counts = [count(path) for path in FILES]
    big, little = (sum(each[order] for each in counts) for order in (False, True))
    assert big + little >= 50_000
    assert min(big, little) >= 20_000


def test_every_instruction_is_among_them() -> None:
    seen: set[Instruction | None] = set()
    for path in FILES:
        for case, answer in load(path, lambda words: len(words) == 1 and decode(words[0]) not in seen):
            # An answer that is exempt says nothing of its instruction.
            if not is_exempt(case, answer):
                seen.add(decode(case.words[0]))
    missing = [one.mnemonic for one in drawn() if one not in seen]
    assert not missing, f"no answers for {missing}: make them anew (oracle/make_answers.py)"


def _one(path: Path) -> Answer:
    return next(answer for answer in load(path) if len(answer[0].words) == 1 and answer[1].vector == 0x700)


@pytest.mark.parametrize(
    "change",
    [
        {"vector": 0x600},
        {"srr0": 4},
        {"srr1": 0},
        {"cr": 0x1234_5678},
        {"xer": 0x1234_5678},
        {"lr": 0x1234_5678},
        {"ctr": 0x1234_5678},
        {"msr": 0},
        {"memory": bytes(256)},
        {"gpr": (1,) * 32},
        {"sprs": (1,) * 10},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_answer_is_seen(change: dict[str, object]) -> None:
    case, answer = _one(FILES[0])
    assert compared(case, answer, answer) is None
    said = compared(case, answer, replace(answer, **change))  # type: ignore[arg-type]
    assert said is not None
    assert "QEMU" in said
    assert "\n" not in said
