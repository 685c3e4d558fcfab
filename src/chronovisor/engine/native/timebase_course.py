"""Programs about the timebase of a core as functions: short courses of reading TB and writing TBU40.

They belong to no guest's instruction; the hypervisor has its own code compiled so.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.code_cache import fetch
from chronovisor.engine.native.layout import Registers
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.lowering import I1, I8, I64, POINTER, word
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.isa.values import Block, Program, Value, When

#: The bits of TB that a write to TBU40 leaves alone.
_LOW_MASK = (1 << 24) - 1

_CLOCK = ir.PointerType(ir.FunctionType(I64, [POINTER, I64]))

Course = Callable[[object], bool]
"""Takes a `TimebaseCell`'s reference; says whether it was done in time. Where it was not, TB is what it was.
"""


class TimebaseCell(ctypes.Structure):
    """A timebase where native code can move it: TB = clock + `origin` + `adjust`, in ticks modulo 2^64.

    `operand` is the program's. `read_clock` is the clock's function, and `thread` a thread's state for it,
    which says whether time is virtual.
    """

    _fields_ = [
        ("read_clock", ctypes.c_uint64),
        ("thread", ctypes.c_uint64),
        ("origin", ctypes.c_uint64),
        ("adjust", ctypes.c_int64),
        ("operand", ctypes.c_uint64),
    ]

    read_clock: int
    operand: int

    def __init__(self, origin: int) -> None:
        self._thread = Registers()
        super().__init__(runtime().now_address, ctypes.addressof(self._thread), origin)
        self.reference = ctypes.byref(self)


class _Lowering:
    """One program on its way into one function."""

    def __init__(self, program: Program, limit: int) -> None:
        self.module = ir.Module(program.name)
        self.module.triple = llvm.get_process_triple()
        self._function = ir.Function(
            self.module, ir.FunctionType(I1, [POINTER]), f"chronovisor_{program.name}"
        )
        (cell,) = self._function.args
        self._function.return_value.add_attribute("zeroext")
        self._values: dict[int, ir.Value] = {}
        self.b = ir.IRBuilder(self._function.append_basic_block("entry"))

        def field(name: str) -> ir.Value:
            return self.b.gep(cell, [word(getattr(TimebaseCell, name).offset)], source_etype=I8)

        def value(name: str) -> ir.Value:
            return self.b.load(field(name), typ=I64)

        self._clock = self.b.inttoptr(value("read_clock"), _CLOCK)
        self._thread = self.b.inttoptr(value("thread"), POINTER)
        self._operand = value("operand")
        origin = value("origin")
        # TB less the clock, the first reading of the clock, and the last one up to now.
        self._ahead = self._kept(self.b.add(origin, value("adjust")))
        self._last = self._kept(word(0))
        self._first: ir.Value | None = None
        self._block(program.body)
        took = self.b.sub(self.b.load(self._last, typ=I64), self._first)
        in_time = self.b.icmp_unsigned("<", took, word(limit))
        with self.b.if_then(in_time):
            self.b.store(self.b.sub(self.b.load(self._ahead, typ=I64), origin), field("adjust"))
        self.b.ret(in_time)

    def _kept(self, value: ir.Value) -> ir.Value:
        place = self.b.alloca(I64)
        self.b.store(value, place)
        return place

    def _now(self) -> ir.Value:
        now = self.b.call(self._clock, [self._thread, word(0)])
        self.b.store(now, self._last)
        if self._first is None:
            self._first = now
        return now

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
            result = self._operand
        elif v.op == "read_live":
            result = self.b.add(self._now(), self.b.load(self._ahead, typ=I64))
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
        upper = self.b.and_(value, word(~_LOW_MASK))
        written = self.b.or_(upper, self.b.and_(timebase, word(_LOW_MASK)))
        self.b.store(self.b.sub(written, now), self._ahead)


def compiled(program: Program, limit: int) -> Course:
    """A program of one operand that begins with a reading of TB and may write TBU40. It takes too long where
    `limit` ticks or more pass from that reading to its last access.

    The interpreter's lock is kept: what is as short as this should not wait to get it back.
    """
    module = _Lowering(program, limit).module
    kept_for = hashlib.sha256(f"{compiler.fingerprint()}{module}".encode()).hexdigest()[:32]
    code = fetch(program.name, kept_for, lambda: compiler.compile_module(module))
    address = runtime().load(program.name, code, f"chronovisor_{program.name}")
    return ctypes.PYFUNCTYPE(ctypes.c_bool)(address)
