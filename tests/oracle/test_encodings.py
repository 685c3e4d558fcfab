"""Which words are instructions, and which facility each needs. QEMU is asked with all facilities off.

The words of an opcode are all extended opcodes with the field at bits 11 to 15, which some instructions use
as a further part of their opcode. Instructions that need no facility have other tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import pytest

from chronovisor.isa.decode import decode
from chronovisor.isa.facilities.rows import MNEMONICS
from chronovisor.isa.instruction import Instruction

from .case import BACKGROUND, CODE, MSR_ME, MSR_SF, STRIDE, Case, Outcome
from .generate import CONDITIONAL_STORES
from .ours import Evaluator
from .qemu import run_batch
from .qemu_errata import is_transactional_without_rc

pytestmark = pytest.mark.usefixtures("qemu")

OPCODES = (4, 31, 57, 59, 60, 61, 63)
"""Those with extended opcodes."""
_ILLEGAL = 1 << 19
_BATCH = 60_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Words on which QEMU 7.2 differs: the answers that it gives, and why ours stands."""

    reason: str
    theirs: str
    applies: Callable[[int, Instruction | None], bool]


def _named(*names: str) -> Callable[[int, Instruction | None], bool]:
    return lambda word, found: found is not None and found.mnemonic in names


def _neighbour(word: int, found: Instruction | None) -> bool:
    other = decode(word ^ 1)
    return found is None and word >> 26 == 4 and other is not None and other.form.name in ("VX", "VC")


def _is_conditional_store(found: Instruction | None) -> bool:
    return found is not None and found.mnemonic in CONDITIONAL_STORES


def _odd_of_a_pair(word: int, found: Instruction | None) -> bool:
    pairs = found is not None and found.mnemonic.startswith("d") and "q" in found.mnemonic
    return pairs and bool(word & ((1 << 21) | (1 << 16) | (1 << 11)))


def _extended(opcode: int, bits: tuple[int, int], *numbers: int) -> Callable[[int, Instruction | None], bool]:
    shift, ones = 31 - bits[1], (1 << (bits[1] - bits[0] + 1)) - 1
    return lambda word, found: found is None and word >> 26 == opcode and ((word >> shift) & ones) in numbers


DIFFERENCES = (
    Difference("QEMU ignores the last bit of many VX-form extended opcodes", "0xf20", _neighbour),
    Difference(
        "QEMU ignores the last bit of maddld's extended opcode",
        "executed",
        lambda word, found: found is None and word >> 26 == 4 and word & 0x3F == 50,
    ),
    Difference(
        "numbers of version 3.1, on which QEMU does nothing",
        "executed",
        _extended(4, (21, 31), 0x18D, 0x1CD, 0x1C7, 0x287, 0x387, 0x5C7, 0x687, 0x787, 0x642),
    ),
    Difference(
        "a conditional store without Rc is not there: QEMU ignores that bit",
        "executed",
        lambda word, found: found is None and _is_conditional_store(decode(word | 1)),
    ),
    Difference(
        "segment registers are not in version 3.0B: QEMU has them",
        "executed",
        _extended(31, (21, 30), 210, 242, 595, 659),
    ),
    Difference(
        "the book has these need MSR[VEC], QEMU MSR[VSX]",
        "0xf40",
        _named("lxsd", "vrlwmi", "vrldmi", "vrlwnm", "vrldnm"),
    ),
    Difference(
        "the book has these need MSR[VEC] for vector registers, QEMU always MSR[VSX]",
        "0xf40",
        _named("lxsibzx", "lxsihzx", "stxsibx", "stxsihx", "lxvh8x", "lxvb16x", "stxvh8x", "stxvb16x"),
    ),
    Difference(
        "xvcmpnesp and xvcmpnedp are not in version 3.0B: QEMU has them of a draft",
        "0xf40",
        _extended(60, (22, 28), 91, 123),
    ),
    Difference(
        "an odd register of a pair is an invalid form, which QEMU calls illegal", "illegal", _odd_of_a_pair
    ),
    Difference(
        "dcffixqq and dctfixqq are of version 3.1: QEMU has them on each processor",
        "0x800",
        _extended(63, (21, 30), 994),
    ),
    Difference(
        "transactional instructions without Rc are not there: QEMU ignores that bit",
        "0xf60",
        lambda word, found: found is None and is_transactional_without_rc(word),
    ),
)


@cache
def _evaluator() -> Evaluator:
    return Evaluator()


def _words(opcodes: Iterable[int], fields: Iterable[int]) -> list[int]:
    chosen = tuple(fields)
    everything = (
        (opcode << 26) | (2 << 21) | (field << 16) | extended
        for opcode in opcodes
        for extended in range(1 << 11)
        for field in chosen
    )
    return [word for word in everything if _is_compared(decode(word))]


def _is_compared(found: Instruction | None) -> bool:
    return found is None or not found.implemented or found.mnemonic in MNEMONICS


def _case(number: int, word: int) -> Case:
    return Case(
        words=(word,),
        address=CODE + number * STRIDE,
        msr=MSR_SF | MSR_ME,
        gpr=BACKGROUND,
        cr=0,
        xer=0,
        lr=0,
        ctr=0,
        sprs=(0,) * 10,
        memory=bytes(256),
    )


def _answer(case: Case, outcome: Outcome) -> str:
    """What became of the word: "illegal", "executed", or the vector of another interrupt."""
    if outcome.srr0 != case.address:
        return "executed"
    if outcome.vector == 0x700 and outcome.srr1 & _ILLEGAL:
        return "illegal"
    return hex(outcome.vector)


def _is_canonical(word: int, found: Instruction) -> bool:
    """Whether the word's reserved bits are zero. The book ignores them; QEMU calls some words illegal."""
    return found.encode(**{field.name: field.decode(word) for field in found.fields}) == word


def _compare(words: list[int]) -> Counter[str]:
    """Compare the answers; how many agreed, had reserved bits, or fell under each of DIFFERENCES."""
    counts: Counter[str] = Counter()
    for start in range(0, len(words), _BATCH):
        cases = [_case(number, word) for number, word in enumerate(words[start : start + _BATCH])]
        for case, outcome in zip(cases, run_batch(cases), strict=True):
            word, found = case.words[0], decode(case.words[0])
            theirs, ours = _answer(case, outcome), _answer(case, _evaluator().evaluate(case))
            if ours == theirs:
                counts["agree"] += 1
            elif found is not None and theirs == "illegal" and not _is_canonical(word, found):
                counts["reserved bits"] += 1
            else:
                because = [one for one in DIFFERENCES if one.theirs == theirs and one.applies(word, found)]
                assert because, f"{word:#010x} ({found}): {ours} here, {theirs} in QEMU"
                counts[because[0].reason] += 1
    return counts


@pytest.mark.oracle
def test_words_with_two_values_of_the_field() -> None:
    words = _words(OPCODES, (0, 1))
    counts = _compare(words)
    assert counts.total() == len(words)
    assert set(counts) == {"agree", "reserved bits", *(one.reason for one in DIFFERENCES)}
    assert counts["agree"] == 24_682


@pytest.mark.oracle
@pytest.mark.soak
def test_every_word() -> None:
    words = _words(OPCODES, range(32))
    counts = _compare(words)
    assert counts.total() == len(words)
    assert set(counts) == {"agree", "reserved bits", *(one.reason for one in DIFFERENCES)}


@pytest.mark.oracle
def test_floating_point_loads_and_stores() -> None:
    words = [(opcode << 26) | (2 << 21) | (3 << 16) | 8 for opcode in range(48, 56)]
    assert _compare(words) == {"agree": 8}
