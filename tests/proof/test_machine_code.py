"""The switch in Power machine code: as the production switch on ints, always; proven; its mutants refuted."""

import itertools
from collections.abc import Iterable
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronovisor.isa.assembly import assemble
from chronovisor.proof import machine_code
from chronovisor.proof.machine_code import ADD_OFFSET, TAKE_OFFSET_AWAY, run_on_ints
from chronovisor.proof.prover import Outcome, examine
from chronovisor.timebase.clock import HostClock, SteppingTime
from chronovisor.timebase.offset import shift
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import GRANULE, MASK64, Offset

INSTRUCTIONS = 13

origins = st.builds(
    lambda upper, low: (upper * GRANULE + low) & MASK64,
    st.one_of(st.integers(0, 2**40 - 1), st.sampled_from([0, 2**40 - 1])),
    st.one_of(st.integers(-40, 40), st.integers(0, GRANULE - 1)),
)
offsets = st.one_of(st.integers(0, 2**40 - 1), st.integers(0, 2)).map(lambda upper: Offset(upper * GRANULE))
# Beyond the switch's limit, too: what is wrong there is wrong in both alike.
step = st.one_of(st.integers(0, 40), st.integers(0, GRANULE // 4), st.integers(0, 2 * GRANULE))


class NotedTime(SteppingTime):
    """A clock that notes when it is read."""

    def __init__(self, steps: Iterable[int] = ()) -> None:
        super().__init__(0, steps)
        self.read_at: list[int] = []

    def ticks(self) -> int:
        self.read_at.append(super().ticks())
        return self.read_at[-1]


class NotedCore(CoreTimebase):
    """A core that notes what is written to its TBU40."""

    def __init__(self, source: NotedTime, origin: int, adjust: int) -> None:
        super().__init__(HostClock(source, origin))
        self.adjust = adjust
        self.written: list[int] = []

    def write_tbu40(self, value: int, when: bool = True) -> None:
        if when:
            self.written.append(value)
        super().write_tbu40(value, when)


@pytest.mark.parametrize(
    ("text", "is_exit"),
    [(ADD_OFFSET, False), (TAKE_OFFSET_AWAY, True)],
    ids=["entry", "exit"],
)
@given(origins, offsets, st.lists(step, min_size=INSTRUCTIONS, max_size=INSTRUCTIONS))
@example(GRANULE - 5, Offset(3 * GRANULE), [0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0])
@example(MASK64 - 5, Offset(-GRANULE & MASK64), [0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0])
def test_machine_code_does_what_the_production_switch_does(
    text: str, is_exit: bool, origin: int, offset: Offset, steps: list[int]
) -> None:
    adjust = offset.signed if is_exit else 0
    stepped = NotedTime()
    by_code = NotedCore(stepped, origin, adjust)
    going = iter(steps)
    run_on_ints(text, by_code, offset.value, lambda: stepped.advance(next(going)))

    # A clock that says the same at the same accesses.
    same = NotedTime(b - a for a, b in itertools.pairwise([0, *stepped.read_at]))
    by_switch = NotedCore(same, origin, adjust)
    shift(by_switch, (-offset if is_exit else offset).value)

    assert by_code.written == by_switch.written
    assert by_code.adjust == by_switch.adjust
    if offset:
        assert stepped.read_at == same.read_at


def test_it_is_about_ten_instructions_each_way() -> None:
    assert len(assemble(ADD_OFFSET)) == len(assemble(TAKE_OFFSET_AWAY)) == 4 * INSTRUCTIONS


MUTANTS = {
    "no check": ("bge     added", "b       added"),
    "the wrong branch": ("bge     added", "blt     added"),
    "also where equal": ("bge     added", "bgt     added"),
    "a carry of 2^23": ("0x100 ", "0x80 "),
    "a carry of 2^25": ("0x100 ", "0x200 "),
    "no carry": ("addis   r22, r22, 0x100", "addis   r22, r22, 0"),
    "the carry lost": ("addis   r22, r22, 0x100", "addis   r23, r22, 0x100"),
    "carried into the reading": ("addis   r22, r22, 0x100", "addis   r22, r21, 0x100"),
    "23 bits compared": ("r23, 8", "r23, 9"),
    "another register compared": ("cmplw   r25, r24", "cmplw   r24, r25"),
    "compared with itself": ("cmplw   r25, r24", "cmplw   r25, r25"),
    "the sum of the wrong two": ("add     r22, r20, r21", "add     r22, r20, r20"),
    "subtracted": ("add     r22, r20, r21", "subf    r22, r20, r21"),
    "only offsets ahead": ("cmpldi  r20, 0\n        beq", "cmpdi   r20, 0\n        ble"),
    "never": ("beq     added", "b       added"),
    "32 bits of the offset": ("ld      r20, 0(r3)", "lwz     r20, 4(r3)"),
    "the upper half of the offset": ("ld      r20, 0(r3)", "lwz     r20, 0(r3)"),
    "the wrong word written again": (
        "mtspr   TBU40, r22\nadded",
        "mtspr   TBU40, r23\nadded",
    ),
    "read before it is written": (
        "mtspr   TBU40, r22          # the low 24 bits go on ticking\n        mfspr   r23, TB",
        "mfspr   r23, TB\n        mtspr   TBU40, r22",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_machine_code_with_one_thing_wrong_is_refuted(name: str) -> None:
    right, wrong = MUTANTS[name]
    assert ADD_OFFSET.count(right) == 1
    finding = examine(partial(machine_code.entry_code, text=ADD_OFFSET.replace(right, wrong)))
    # The prover has run the case in the concrete evaluator, with the same outcome.
    assert finding.outcome is Outcome.REFUTED


def test_machine_code_that_says_the_same_otherwise_is_proven() -> None:
    other = ADD_OFFSET.replace("beq     added", "ble     added")  # less than 0, unsigned: never
    assert examine(partial(machine_code.entry_code, text=other)).outcome is Outcome.PROVEN


def test_code_that_does_not_come_to_its_end_is_refuted() -> None:
    looping = ADD_OFFSET.replace("bge     added", "bge     .")
    finding = examine(partial(machine_code.entry_code, text=looping))
    assert finding.outcome is Outcome.REFUTED


def test_code_that_writes_another_register_of_time_is_not_taken_for_proven() -> None:
    other = ADD_OFFSET.replace("mtspr   TBU40, r22\nadded", "mtspr   DEC, r22\nadded")
    finding = examine(partial(machine_code.entry_code, text=other))
    assert finding.outcome is Outcome.UNDECIDED
    assert finding.limit == "the code accesses DEC: here it may only read TB and write TBU40"
