"""The compiled switch is `shift`: the same timebase after it, whatever the time its steps take."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("llvmlite")

from chronovisor.engine.choice import engine_named
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.native_switch import NativeSwitch, NativeTimebase, switching
from chronovisor.timebase.clock import HostClock, RealTime, SteppingTime, VirtualTime
from chronovisor.timebase.offset import Applied, Switch
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import GRANULE, MASK64, Offset

offsets = st.integers(1, (1 << 40) - 1).map(lambda n: Offset(n << 24))
# Small steps, and those around a wrap of the low 24 bits; few enough that a switch is in time.
steps = st.lists(st.one_of(st.integers(0, 3), st.integers(0, GRANULE // 8)), min_size=5, max_size=5)
# The reading, the write, and the reading behind it, 2^24 ticks after the first.
TOO_SLOW = [0, 0, GRANULE]


class Given:
    """A core for compiled switches, whose clock stands at each of `readings` in turn, then at the last."""

    def __init__(self, readings: Iterable[int], origin: int = 0) -> None:
        self.readings = iter(readings)
        self._function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(self._read)
        self.last = 0
        self.core = NativeTimebase(HostClock(VirtualTime(), origin))
        self.core.read_clock = ctypes.cast(self._function, ctypes.c_void_p).value or 0
        # Native code has no more than its address: it lives as long as the core.
        self.core.called_by_address = self._function

    def _read(self, thread: int, budget: int) -> int:
        self.last = next(self.readings, self.last)
        return self.last & MASK64


class Compiled(NativeSwitch):
    """A switch that is compiled or none."""

    def _add(self, tb: CoreTimebase, offset: Offset, seen: object) -> None:
        raise AssertionError("an entry was made by the interpreted switch")

    def _breach(self, tb: CoreTimebase, delta: int, seen: object) -> bool:
        raise AssertionError("an exit was made by the interpreted switch")


def readings(start: int, taken: list[int]) -> Iterator[int]:
    """The clock at each access: `taken` ticks go by before each."""
    now = start
    for step in taken:
        now += step
        yield now


@given(origin=st.integers(0, MASK64), start=st.integers(0, 1 << 60), offset=offsets, taken=steps)
@example(origin=0, start=0, offset=Offset(1 << 63), taken=[0] * 5)
def test_compiled_is_interpreted(origin: int, start: int, offset: Offset, taken: list[int]) -> None:
    """Entry and exit, on a clock that steps before each access."""
    source = SteppingTime(start, taken)
    interpreted = CoreTimebase(HostClock(source, origin))
    given = Given(readings(start, taken), origin)
    Switch().enter(interpreted, offset)
    Compiled().enter(given.core, offset)
    assert given.core.adjust == interpreted.adjust == offset.signed

    source.inject(taken)
    given.readings = readings(start, taken)
    Switch().leave(interpreted, Applied(offset))
    Compiled().leave(given.core, Applied(offset))
    assert given.core.adjust == interpreted.adjust == 0


@given(
    origin=st.integers(0, MASK64), start=st.integers(0, 1 << 60), delta=offsets, before=st.integers(0, 200)
)
def test_a_wrap_between_the_reading_and_the_write_is_carried(
    origin: int, start: int, delta: Offset, before: int
) -> None:
    """The low 24 bits wrap `before` ticks after the first reading: seen from the step that crosses it."""
    start += -(start + origin + before) % GRANULE
    for crossing in range(1, 4):
        taken = [0] * 5
        taken[crossing] = before + 1
        core = Given(readings(start, taken), origin).core
        Compiled().enter(core, delta)
        assert core.adjust == delta.signed


def test_one_that_takes_too_long_changes_nothing_and_is_made_again() -> None:
    core = Given([*TOO_SLOW, *TOO_SLOW], 12345).core
    core.operand = 5 * GRANULE
    for _ in range(2):
        assert not switching()(core.reference)
        assert core.adjust == 0
    core = Given([*TOO_SLOW, *(GRANULE + n for n in TOO_SLOW)], 12345).core
    assert NativeSwitch().enter(core, Offset(5 * GRANULE))
    assert core.adjust == 5 * GRANULE
    NativeSwitch().leave(core, Applied(Offset(5 * GRANULE)))
    assert core.adjust == 0


def test_one_just_in_time_is_taken() -> None:
    Compiled().enter(Given([0, 0, GRANULE - 1]).core, Offset(GRANULE))


def test_another_timebase_is_switched_by_the_interpreted_course() -> None:
    core = CoreTimebase(HostClock(VirtualTime(), 5))
    NativeSwitch().enter(core, Offset(GRANULE))
    assert core.adjust == GRANULE
    NativeSwitch().leave(core, Applied(Offset(GRANULE)))
    assert core.adjust == 0


def test_on_the_machines_own_clock() -> None:
    core = NativeTimebase(HostClock(RealTime(), 99))
    switch = Compiled()
    for number in range(1, 1000):
        offset = Offset(((number * GRANULE) << 20) & MASK64)
        applied = switch.enter(core, offset)
        assert core.adjust == offset.signed
        switch.leave(core, applied)
        assert core.adjust == 0


def test_who_has_it() -> None:
    """The machine's own clock, native guests, and the switch that is proven: no stand-in is compiled away."""
    for engine in ("threaded", "regions"):
        host = Hypervisor(RealTime(), engine=engine_named(engine))
        assert isinstance(host.switch, NativeSwitch)
        assert all(type(core.timebase) is NativeTimebase for core in host.cores)
    assert not isinstance(Hypervisor(VirtualTime(), engine=NativeEngine).switch, NativeSwitch)
    assert not isinstance(Hypervisor(RealTime()).switch, NativeSwitch)
