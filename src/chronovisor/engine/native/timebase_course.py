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
from chronovisor.engine.native.lowering import I8, I64, POINTER, word
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.isa.values import Block, Program, Value, When

#: What a function gives for a course that took too long.
TOO_LONG = 1

#: The bits of TB that a write to TBU40 leaves alone.
_LOW_MASK = (1 << 24) - 1

_CLOCK = ir.PointerType(ir.FunctionType(I64, [POINTER, I64]))

Course = Callable[[int], int]
"""Takes the address of an `Order` and gives how far TB was moved, in ticks modulo 2^64, or `TOO_LONG`."""


class Order(ctypes.Structure):
    """What a course is given: the clock's function and the state of a thread for it (which says whether
    time is virtual); TB less the clock, and the program's operand; ticks, modulo 2^64.
    """

    _fields_ = [
        ("clock", ctypes.c_uint64),
        ("thread", ctypes.c_uint64),
        ("ahead", ctypes.c_uint64),
        ("operand", ctypes.c_uint64),
    ]

    def __init__(self, clock: int | None = None) -> None:
        """`clock` is the address of a function that stands for the machine's own clock."""
        self._thread = Registers()
        super().__init__(clock or runtime().now_address, ctypes.addressof(self._thread))


class _Lowering:
    """One program on its way into one function."""

    def __init__(self, program: Program, limit: int) -> None:
        self.module = ir.Module(program.name)
        self.module.triple = llvm.get_process_triple()
        self._function = ir.Function(
            self.module, ir.FunctionType(I64, [POINTER]), f"chronovisor_{program.name}"
        )
        self._values: dict[int, ir.Value] = {}
        self.b = ir.IRBuilder(self._function.append_basic_block("entry"))
        self._clock = self.b.inttoptr(self._field("clock"), _CLOCK)
        self._thread = self.b.inttoptr(self._field("thread"), POINTER)
        self._operand = self._field("operand")
        before = self._field("ahead")
        self._ahead = self.b.alloca(I64)
        self.b.store(before, self._ahead)
        self._readings: list[ir.Value] = []
        self._block(program.body)
        took = self.b.sub(self._now(), self._readings[0])
        moved = self.b.sub(self.b.load(self._ahead, typ=I64), before)
        too_long = self.b.icmp_unsigned(">=", took, word(limit))
        self.b.ret(self.b.select(too_long, word(TOO_LONG), moved))

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
            result = self._operand
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
        upper = self.b.and_(value, word(~_LOW_MASK))
        written = self.b.or_(upper, self.b.and_(timebase, word(_LOW_MASK)))
        self.b.store(self.b.sub(written, now), self._ahead)


def compiled(program: Program, limit: int) -> Course:
    """A program of one operand that reads TB and writes TBU40. It takes too long where `limit` ticks or more
    pass from its first reading to its end.

    The interpreter's lock is kept: what is as short as this should not wait to get it back.
    """
    module = _Lowering(program, limit).module
    kept_for = hashlib.sha256(f"{compiler.fingerprint()}{module}".encode()).hexdigest()[:32]
    code = fetch(program.name, kept_for, lambda: compiler.compile_module(module))
    address = runtime().load(program.name, code, f"chronovisor_{program.name}")
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)
