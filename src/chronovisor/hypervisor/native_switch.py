"""The switch as machine code: `timebase.offset.shift` itself, traced once and compiled.

Interpreted, the readings and writes of one switch cost several microseconds. Compiled, all of it is one call.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from chronovisor.engine.native.timebase_course import TOO_LONG, Course, Order, compiled
from chronovisor.isa.values import Program, Trace, Value
from chronovisor.timebase.offset import Applied, Switch, shift
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import GRANULE, MASK64, Offset, signed64


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

    # Equality makes a value here, not a truth: nothing could be looked up by it.
    __hash__ = None  # type: ignore[assignment]


def _plain(operand: Any) -> Any:
    return operand.value if isinstance(operand, _Word) else operand


class _TracedTimebase:
    """A timebase register whose accesses are recorded."""

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
def _compiled() -> Course:
    return compiled(traced(), limit=GRANULE)


class NativeSwitch(Switch):
    """The switch of a host on the machine's own clock, with `shift` compiled.

    Where each step is to be told, and where a switch took too long and is made again, it is the interpreted
    one. Not for two threads at once: the host's monitor sees to that.
    """

    def __init__(self, clock: int | None = None) -> None:
        """`clock` is the address of a function that stands for the machine's own clock."""
        super().__init__(shift)
        self._compiled = _compiled()
        self._order = Order(clock)
        self._at = ctypes.addressof(self._order)

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Give the core the guest's time, as the interpreted switch does."""
        delta = offset.value
        if observer is None and (not delta or (tb.has_tbu40 and self._moved(tb, delta))):
            return Applied(offset)
        return super().enter(tb, offset, observer)

    def leave(self, tb: CoreTimebase, applied: Applied, observer: Observer | None = None) -> None:
        """Give the core back the host's time, as the interpreted switch does."""
        delta = -applied.offset.value & MASK64
        if observer is not None or (delta and not self._moved(tb, delta)):
            super().leave(tb, applied, observer)

    def _moved(self, tb: CoreTimebase, delta: int) -> bool:
        """Shift by `delta` (64-bit); False, with T as it was, where that took 2^24 ticks or more."""
        order, adjust = self._order, tb.adjust
        order.ahead = tb.clock.origin + adjust
        order.operand = delta
        moved = self._compiled(self._at)
        if moved == TOO_LONG:
            return False
        tb.adjust = signed64(adjust + moved)
        return True
