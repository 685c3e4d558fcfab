"""The switch as machine code: `timebase.offset.shift` itself, traced once and compiled.

Interpreted, the reads and writes of one switch take several microseconds. Compiled, the switch is one call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from chronovisor.engine.native.timebase_course import Course, TimebaseCell, compiled
from chronovisor.isa.values import Program, Trace, Value
from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.offset import Applied, Switch, shift
from chronovisor.timebase.tbu40 import CoreTimebase, HostTimebase
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import GRANULE, Offset


class _Word:
    """A traced value with an int's operators; comparisons are unsigned."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __add__(self, other: Any) -> _Word:
        return _Word(self.value + _plain(other))

    def __and__(self, other: Any) -> _Word:
        return _Word(self.value & _plain(other))

    def __lt__(self, other: Any) -> _Word:
        return _Word(self.value.ult(_plain(other)))

    def __ne__(self, other: object) -> Any:
        return _Word(self.value.ne(_plain(other)))

    # Equality returns a value here, not a bool, so these words cannot be keys.
    __hash__ = None  # type: ignore[assignment]


def _plain(operand: Any) -> Any:
    return operand.value if isinstance(operand, _Word) else operand


class _TracedTimebase:
    """A timebase register that records its accesses."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def read(self) -> _Word:
        return _Word(self._trace.emit("read_live", 64, (), "TB"))

    def write_tbu40(self, value: _Word, when: Any = True) -> None:
        with self._trace.when(_plain(when)):
            self._trace.emit("write_live", 0, (value.value,), "TBU40")


def traced() -> Program:
    """`shift`, recorded: its operand is `delta`."""
    trace = Trace()
    shift(_TracedTimebase(trace), _Word(trace.emit("operand", 64, (), "delta")))
    return trace.program("shift", ("delta",))


@cache
def switching() -> Course:
    """`shift`, compiled."""
    return compiled(traced(), limit=GRANULE)


class NativeTimebase(TimebaseCell, CoreTimebase):
    """A core's timebase register, in the memory that the compiled `shift` changes."""

    def __init__(self, clock: HostClock, core: int = 0, has_tbu40: bool = True) -> None:
        TimebaseCell.__init__(self, clock.origin)
        CoreTimebase.__init__(self, clock, core, has_tbu40)


class NativeSwitch(Switch):
    """The switch of a host on the machine's own clock, with `shift` compiled.

    It uses the interpreted switch if an observer wants to know each step, and to repeat a switch that took
    too long. It serves cores that have TBU40.
    """

    timebase = NativeTimebase

    def __init__(self) -> None:
        super().__init__(shift)
        self._in_time = switching()

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Give the core the guest's time, as the interpreted switch does."""
        # Asserted without a call of the type, for which each entry would pay; so is the witness below.
        if observer is None and type(tb) is NativeTimebase:
            if not offset.value:
                return offset  # type: ignore[return-value]
            tb.operand = offset.value
            if self._in_time(tb.reference):
                return offset  # type: ignore[return-value]
        return super().enter(tb, offset, observer)

    def leave(self, tb: CoreTimebase, applied: Applied, observer: Observer | None = None) -> HostTimebase:
        """Give the core back the host's time, as the interpreted switch does."""
        if observer is None and type(tb) is NativeTimebase:
            if not applied.value:
                return tb  # type: ignore[return-value]
            tb.operand = -applied.value
            if self._in_time(tb.reference):
                return tb  # type: ignore[return-value]
        return super().leave(tb, applied, observer)
