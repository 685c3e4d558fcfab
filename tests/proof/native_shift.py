"""A switch of any kind as native code: traced over exact integers, as Python has them, and compiled."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from chronovisor.engine.native.timebase_course import Course, TimebaseCell, compiled
from chronovisor.isa.values import Program, Trace, Value
from chronovisor.timebase.types import MASK64

from .mutants import AnyShift

WIDTH = 128
"""Bits that hold whatever the sums of a few 64-bit words come to, signed: nothing wraps."""


class Truth:
    """The outcome of a comparison, 1 bit."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __and__(self, other: Any) -> Any:
        return Truth(self.value & _value(other))

    __rand__ = __and__


class Exact:
    """An integer with a Python int's operators."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def _with(self, other: Any, operation: Callable[[Value, Any], Value]) -> Exact:
        return Exact(operation(self.value, _value(other)))

    def __add__(self, other: Any) -> Exact:
        return self._with(other, lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Exact:
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: Any) -> Exact:
        return self._with(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __and__(self, other: Any) -> Exact:
        return self._with(other, lambda a, b: a & b)

    def __or__(self, other: Any) -> Exact:
        return self._with(other, lambda a, b: a | b)

    def __rshift__(self, other: int) -> Exact:
        return self._with(other, lambda a, b: a.ashr(b))

    def __lt__(self, other: Any) -> Truth:
        return Truth(self.value.slt(_value(other)))

    def __gt__(self, other: Any) -> Truth:
        return Truth(self.value.sgt(_value(other)))

    def __le__(self, other: Any) -> Truth:
        return Truth(~self.value.sgt(_value(other)))

    def __ge__(self, other: Any) -> Truth:
        return Truth(~self.value.slt(_value(other)))

    def __eq__(self, other: object) -> Any:
        return Truth(self.value.eq(_value(other)))

    def __ne__(self, other: object) -> Any:
        return Truth(self.value.ne(_value(other)))

    __hash__ = None  # type: ignore[assignment]


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, Exact | Truth) else operand


class _Timebase:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def read(self) -> Exact:
        return Exact(self._trace.emit("read_live", 64, (), "TB").zext(WIDTH))

    def write_tbu40(self, value: Exact, when: Any = True) -> None:
        with self._trace.when(_value(when)):
            self._trace.emit("write_live", 0, (value.value.trunc(64),), "TBU40")


_count = itertools.count()


def traced(shifter: AnyShift) -> Program:
    """The shifter, recorded under a name of its own."""
    trace = Trace()
    shifter(_Timebase(trace), Exact(trace.emit("operand", 64, (), "delta").zext(WIDTH)))
    return trace.program(f"any_shift_{next(_count)}", ("delta",))


@functools.cache
def native(shifter: AnyShift) -> Course:
    """The shifter, compiled; it is never too slow."""
    return compiled(traced(shifter), limit=1 << 63)


def moved(shifter: AnyShift, delta: int, readings: Sequence[int]) -> tuple[int, int]:
    """How far native code moves the timebase of a core in the host, whose clock has these readings: in ticks
    modulo 2^64; and how often it reads the clock.
    """
    taken = 0

    def read(thread: int, budget: int) -> int:
        nonlocal taken
        taken += 1
        return readings[min(taken, len(readings)) - 1] & MASK64

    clock = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(read)
    cell = TimebaseCell(0)
    cell.read_clock = ctypes.cast(clock, ctypes.c_void_p).value or 0
    cell.operand = delta
    assert native(shifter)(cell.reference)
    return cell.adjust & MASK64, taken
