import itertools
from typing import Any

import pytest
import z3
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.clock import HostClock, SteppingTime, VirtualTime
from chronovisor.timebase.offset import (
    Applied,
    Shift,
    Switch,
    SwitchBreachError,
    require_tbu40,
    shift,
)
from chronovisor.timebase.tbu40 import CoreTimebase, NoTbu40Error, TimebaseRegister
from chronovisor.timebase.trace import (
    Event,
    HostTimeRestored,
    OffsetApplied,
    SwitchBreached,
    Tbu40Written,
    TimebaseRead,
    Wrapped,
)
from chronovisor.timebase.types import GRANULE, LOW_MASK, HostTime, Offset, Ticks

# Close to a wrap of the low 24 bits, or anywhere.
phases = st.one_of(st.integers(-64, 64), st.integers(0, LOW_MASK))
origins = st.builds(lambda upper, low: (upper << 24) + low, st.integers(0, 2**40 - 1), phases)
offsets = st.builds(
    lambda upper: Offset(upper << 24), st.one_of(st.integers(0, 2**40 - 1), st.integers(0, 2))
)


@st.composite
def steps_within(draw: st.DrawFn, accesses: int) -> list[int]:
    """Steps before so many accesses: anything before the first, less than 2^24 ticks from it to the last."""
    cuts = sorted(
        draw(
            st.lists(
                st.one_of(st.integers(0, 40), st.integers(0, LOW_MASK)),
                min_size=accesses - 1,
                max_size=accesses - 1,
            )
        )
    )
    return [draw(st.integers(0, 2**25)), *(b - a for a, b in itertools.pairwise([0, *cuts]))]


class Core:
    """A core whose clock steps before each access, and the same core had it never switched."""

    def __init__(self, origin: int, has_tbu40: bool = True) -> None:
        self.source = SteppingTime()
        self.clock = HostClock(self.source, origin)
        self.timebase = CoreTimebase(self.clock, has_tbu40=has_tbu40)
        self.events: list[Event] = []

    def ahead(self) -> int:
        """The timebase less the host's, both read at one tick."""
        self.source.inject(())
        return (self.timebase.read() - self.clock.now().value) % 2**64


@given(origins, offsets, steps_within(4), steps_within(4))
def test_offset_is_added_and_taken_away_whatever_happens_between(
    origin: int, offset: Offset, entering: list[int], leaving: list[int]
) -> None:
    core = Core(origin)
    core.source.inject(entering)
    shift(core.timebase, offset.value)
    assert core.ahead() == offset.value
    core.source.inject(leaving)
    shift(core.timebase, (-offset).value)
    assert core.ahead() == 0


@given(
    origins,
    offsets,
    st.lists(st.integers(0, 2**26), max_size=40),
    st.lists(st.integers(0, 2**26), max_size=10),
)
def test_switch_holds_even_where_its_precondition_does_not(
    origin: int, offset: Offset, entering: list[int], leaving: list[int]
) -> None:
    core = Core(origin)
    switch = Switch()
    core.source.inject(entering)
    try:
        applied = switch.enter(core.timebase, offset)
    except SwitchBreachError:
        assert core.ahead() == 0
        return
    assert core.ahead() == offset.value
    core.source.inject(leaving)
    switch.leave(core.timebase, applied)
    assert core.ahead() == 0


@given(origins, st.lists(st.tuples(offsets, st.lists(st.integers(0, 2**24), max_size=12)), max_size=6))
def test_low_bits_stay_in_step_with_a_core_that_never_switches(
    origin: int, entries: list[tuple[Offset, list[int]]]
) -> None:
    core = Core(origin)
    other = CoreTimebase(core.clock, core=1)
    low: list[bool] = []

    def look() -> None:
        low.append((core.timebase.read() - other.read()) & LOW_MASK == 0)

    switch = Switch()
    for offset, steps in entries:
        for after in range(0, sum(steps), 1 + sum(steps) // 8):
            core.source.call_at(core.source.ticks() + after, look)
        core.source.inject(steps)
        applied = switch.enter(core.timebase, offset)
        core.source.call_at(0, look)
        switch.leave(core.timebase, applied)
        core.source.call_at(0, look)
        core.source.advance(0)
    assert all(low)


@given(
    origins, st.integers(0, 2**40 - 1), st.lists(st.tuples(st.integers(0, 3000), steps_within(6)), max_size=8)
)
def test_guest_time_never_goes_back_over_entries(
    origin: int, upper: int, stays: list[tuple[int, list[int]]]
) -> None:
    core = Core(origin)
    offset, switch = Offset(upper << 24), Switch()
    last = None
    for stay, steps in stays:
        core.source.inject(steps)
        applied = switch.enter(core.timebase, offset)
        for _ in range(2):
            now = core.timebase.read()
            assert last is None or 0 <= (now - last) % 2**64 < 2**63
            last = now
            core.source.advance(stay)
        core.source.inject(steps)
        switch.leave(core.timebase, applied)


def test_a_wrap_between_the_reading_and_the_write_is_seen_and_repaired() -> None:
    core = Core(GRANULE - 8)
    core.source.inject([0, 0, 16, 0])
    applied = Switch().enter(core.timebase, Offset(5 * GRANULE), core.events.append)
    assert core.events == [
        TimebaseRead(0, GRANULE - 8),
        Tbu40Written(0, 6 * GRANULE - 8, after_wrap=False),
        TimebaseRead(0, 5 * GRANULE + 8),
        Wrapped(0),
        Tbu40Written(0, 7 * GRANULE - 8, after_wrap=True),
        OffsetApplied(0, Offset(5 * GRANULE)),
    ]
    core.events.clear()
    core.source.inject([0, 0, 0, 100])
    Switch().leave(core.timebase, applied, core.events.append)
    assert core.clock.now() == HostTime(GRANULE + 108)
    assert core.events == [
        TimebaseRead(0, 6 * GRANULE + 8),
        Tbu40Written(0, GRANULE + 8, after_wrap=False),
        TimebaseRead(0, GRANULE + 108),
        HostTimeRestored(0, HostTime(GRANULE + 108), Offset(5 * GRANULE)),
    ]


def test_the_time_that_an_exit_tells_is_not_one_from_before_a_wrap() -> None:
    core = Core(GRANULE - 1)
    applied = Switch().enter(core.timebase, Offset(GRANULE))
    core.source.inject([0, 0, 1, 0, 0, 0, 7])
    Switch().leave(core.timebase, applied, core.events.append)
    assert core.events[-1] == HostTimeRestored(0, HostTime(GRANULE + 7), Offset(GRANULE))


def test_a_breach_is_reported_and_repaired() -> None:
    core = Core(100)
    core.source.inject([0, 0, 0, GRANULE])
    Switch().enter(core.timebase, Offset(GRANULE), core.events.append)
    assert SwitchBreached(0, Ticks(GRANULE)) in core.events
    assert core.ahead() == GRANULE
    core.events.clear()
    core.source.inject([0, 0, 3 * GRANULE])
    Switch().leave(core.timebase, Applied(Offset(GRANULE)), core.events.append)
    assert SwitchBreached(0, Ticks(3 * GRANULE)) in core.events
    assert core.ahead() == 0
    assert core.events[-1] == HostTimeRestored(0, core.clock.now(), Offset(GRANULE))


def test_an_entry_that_is_never_fast_enough_is_given_up_in_host_time() -> None:
    core = Core(100)
    core.source.inject(itertools.repeat(GRANULE))
    with pytest.raises(SwitchBreachError, match="core 0"):
        Switch().enter(core.timebase, Offset(GRANULE), core.events.append)
    assert core.ahead() == 0
    assert len([event for event in core.events if isinstance(event, SwitchBreached)]) == Switch.ATTEMPTS
    assert not any(isinstance(event, OffsetApplied) for event in core.events)


def test_the_limit_of_the_bare_switch_is_tight() -> None:
    core = Core(0)
    core.source.inject([0, GRANULE])
    shift(core.timebase, 5 * GRANULE)
    assert core.ahead() != 5 * GRANULE


def test_an_observer_is_told_after_the_switch_not_in_it() -> None:
    core = Core(0)
    seen: list[Event] = []

    def slow(event: Event) -> None:
        core.source.advance(GRANULE)
        seen.append(event)

    Switch().enter(core.timebase, Offset(GRANULE), slow)
    assert core.ahead() == GRANULE
    assert not any(isinstance(event, SwitchBreached) for event in seen)


def test_without_an_offset_nothing_is_written() -> None:
    core = Core(GRANULE - 1, has_tbu40=False)
    core.source.inject([0, 1, 1, 1])
    assert not shift(core.timebase, 0).moved
    switch = Switch()
    applied = switch.enter(core.timebase, Offset(0), core.events.append)
    switch.leave(core.timebase, applied, core.events.append)
    core.source.inject(())
    assert core.events == [OffsetApplied(0, Offset(0)), HostTimeRestored(0, core.clock.now(), Offset(0))]


def test_a_host_without_tbu40_refuses_an_offset_and_says_why() -> None:
    core = Core(0, has_tbu40=False)
    with pytest.raises(NoTbu40Error, match="0x1000000 needs the TBU40 register"):
        Switch().enter(core.timebase, Offset(GRANULE))
    with pytest.raises(NoTbu40Error):
        require_tbu40(Offset(GRANULE), has_tbu40=False)
    with pytest.raises(NoTbu40Error):
        core.timebase.write_tbu40(0)
    assert core.timebase.adjust == 0
    require_tbu40(Offset(0), has_tbu40=False)
    require_tbu40(Offset(GRANULE), has_tbu40=True)


def test_another_switch_can_stand_in_its_place() -> None:
    def unchecked(tb: TimebaseRegister[int], delta: int) -> Shift[int]:
        before = tb.read()
        written = (before + delta) % 2**64
        tb.write_tbu40(written)
        return Shift(before, written, tb.read(), True, False)

    core = Core(GRANULE - 8)
    core.source.inject([0, 0, 16])
    Switch(unchecked).enter(core.timebase, Offset(5 * GRANULE))
    assert core.ahead() == 4 * GRANULE


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_tbu40_replaces_the_upper_bits_alone(start: int, value: int) -> None:
    source = VirtualTime(start)
    core = CoreTimebase(HostClock(source))
    core.write_tbu40(value)
    assert core.read() == (value & ~LOW_MASK) | (start & LOW_MASK)
    source.advance(1)
    assert core.read() == ((value & ~LOW_MASK) + (start & LOW_MASK) + 1) % 2**64
    assert core.tod() == HostTime(start + 1)
    core.load_from_tod()
    assert core.read() == (start + 1) % 2**64


class SymbolicRegister:
    """A timebase as a prover sees it: each access comes at a time of its own."""

    def __init__(self, times: list[z3.BitVecRef]) -> None:
        self.times = times
        self.adjust: Any = z3.BitVecVal(0, 64)

    def _now(self) -> z3.BitVecRef:
        self.time = self.times.pop(0)
        return self.time + self.adjust

    def read(self) -> z3.BitVecRef:
        return self._now()

    def write_tbu40(self, value: Any, when: Any = True) -> None:
        now = self._now()
        written = (value & ~LOW_MASK) | (now & LOW_MASK)
        self.adjust = z3.If(when, written - self.time, self.adjust)


@pytest.mark.parametrize(("within", "verdict"), [(GRANULE, z3.unsat), (GRANULE + 1, z3.sat)])
def test_the_same_switch_runs_on_bit_vectors(within: int, verdict: z3.CheckSatResult) -> None:
    times = [z3.BitVec(f"t{n}", 64) for n in range(4)]
    delta = z3.BitVec("delta", 64)
    solver = z3.Solver()
    for a, b in itertools.pairwise(times):
        solver.add(z3.ULE(b - a, within))
    solver.add(z3.ULT(times[3] - times[0], within), delta & LOW_MASK == 0)
    register = SymbolicRegister(list(times))
    shift(register, delta)
    solver.add(register.adjust != delta)
    assert solver.check() == verdict
