"""The switch as machine code: `timebase.offset.shift` itself, traced once and compiled.

Interpreted, the readings and writes of one switch cost several microseconds. Compiled, all of it is one call.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.code_cache import fetch
from chronovisor.engine.native.layout import Registers
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.lowering import I8, I64, POINTER, word
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.isa.values import Block, Program, Trace, Value, When
from chronovisor.timebase.offset import Applied, Switch, shift
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.trace import Observer
from chronovisor.timebase.types import GRANULE, LOW_MASK, MASK64, Offset, signed64

_SYMBOL = "chronovisor_shift"
_BREACHED = 1
"""What compiled code says of a switch that took 2^24 ticks or more: no multiple of 2^24, as moves are."""
_CLOCK = ir.PointerType(ir.FunctionType(I64, [POINTER, I64]))


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


class Order(ctypes.Structure):
    """What the compiled switch is given: the clock's function and the state of a thread for it (which says
    whether time is virtual); T less the clock, and how far to move it, in ticks modulo 2^64.
    """

    _fields_ = [
        ("clock", ctypes.c_uint64),
        ("thread", ctypes.c_uint64),
        ("ahead", ctypes.c_uint64),
        ("delta", ctypes.c_uint64),
    ]


class _Lowering:
    """The recorded switch on its way into one function: order -> how far T was moved, or `_BREACHED`."""

    def __init__(self, program: Program) -> None:
        self.module = ir.Module("switch")
        self.module.triple = llvm.get_process_triple()
        self._function = ir.Function(self.module, ir.FunctionType(I64, [POINTER]), _SYMBOL)
        self._values: dict[int, ir.Value] = {}
        self.b = ir.IRBuilder(self._function.append_basic_block("entry"))
        self._clock = self.b.inttoptr(self._field("clock"), _CLOCK)
        self._thread = self.b.inttoptr(self._field("thread"), POINTER)
        self._delta = self._field("delta")
        before = self._field("ahead")
        self._ahead = self.b.alloca(I64)
        self.b.store(before, self._ahead)
        self._readings: list[ir.Value] = []
        self._block(program.body)
        took = self.b.sub(self._now(), self._readings[0])
        moved = self.b.sub(self.b.load(self._ahead, typ=I64), before)
        breached = self.b.icmp_unsigned(">=", took, word(GRANULE))
        self.b.ret(self.b.select(breached, word(_BREACHED), moved))

    def _field(self, name: str) -> ir.Value:
        offset = word(getattr(Order, name).offset)
        return self.b.load(self.b.gep(self._function.args[0], [offset], source_etype=I8), typ=I64)

    def _now(self) -> ir.Value:
        return self.b.call(self._clock, [self._thread, word(0)])

    def _block(self, block: Block) -> None:
        for statement in block:
            if isinstance(statement, When):
                with self.b.if_then(self._values[id(statement.condition)]):
                    self._block(statement.body)
            else:
                self._statement(statement)

    def _statement(self, v: Value) -> None:
        arguments = [self._values[id(argument)] for argument in v.args]
        if v.op == "operand":
            result = self._delta
        elif v.op == "read_live":
            self._readings.append(self._now())
            result = self.b.add(self._readings[-1], self.b.load(self._ahead, typ=I64))
        elif v.op == "write_live":
            self._write_tbu40(arguments[0])
            return
        else:
            result = LOWERINGS[v.op](self, v, *arguments)
        self._values[id(v)] = result

    def _write_tbu40(self, value: ir.Value) -> None:
        """As the register does: the upper 40 bits are the value's, the low 24 tick on."""
        now = self._now()
        timebase = self.b.add(now, self.b.load(self._ahead, typ=I64))
        upper = self.b.and_(value, word(~LOW_MASK))
        written = self.b.or_(upper, self.b.and_(timebase, word(LOW_MASK)))
        self.b.store(self.b.sub(written, now), self._ahead)


CompiledShift = Callable[[int], int]
"""Takes the address of an `Order`. It keeps the interpreter's lock: a switch is no time to wait for that."""


@cache
def compiled_shift() -> CompiledShift:
    """`shift` as machine code."""
    module = _Lowering(traced()).module
    kept_for = hashlib.sha256(f"{compiler.fingerprint()}{module}".encode()).hexdigest()[:32]
    code = fetch("switch", kept_for, lambda: compiler.compile_module(module))
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(runtime().load("switch", code, _SYMBOL))


class NativeSwitch(Switch):
    """The switch of a host on the machine's own clock, with `shift` compiled.

    Where each step is to be told, and where a switch took too long and is made again, it is the interpreted
    one. Not for two threads at once: the host's monitor sees to that.
    """

    def __init__(self, clock: int | None = None) -> None:
        """`clock` is the address of a function that stands for the machine's own clock."""
        super().__init__(shift)
        self._compiled = compiled_shift()
        self._thread = Registers()
        self._order = Order(clock or runtime().now_address, ctypes.addressof(self._thread))
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
        order.delta = delta
        moved = self._compiled(self._at)
        if moved & LOW_MASK:
            return False
        tb.adjust = signed64(adjust + moved)
        return True
