"""Programs about the timebase of a core as functions: short courses of reading TB and writing TBU40.

They are part of no guest's instruction: the hypervisor has its own code compiled in this way.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.emitter import CLOCK_POINTER, I1, I64, POINTER, Emitter, Row, word
from chronovisor.engine.native.library import object_file, runtime
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.engine.native.state_layout import Registers
from chronovisor.engine.statistics import HANDLERS
from chronovisor.isa.values import Program

#: The bits of TB that a write to TBU40 leaves alone.
_LOW_MASK = (1 << 24) - 1

Course = Callable[[object], bool]
"""Takes a `TimebaseCell`'s reference; returns whether it was done in time. If it was not, TB is unchanged."""


class TimebaseCell(ctypes.Structure):
    """A timebase that native code can move: TB = clock + `origin` + `adjust`, in ticks modulo 2^64.

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

    # As in `NativeThread`.
    __slots__ = ("_thread", "reference")

    read_clock: int
    operand: int

    def __init__(self, origin: int) -> None:
        self._thread = Registers()
        super().__init__(runtime().now_address, ctypes.addressof(self._thread), origin)
        # As in `NativeThread`.
        self.reference = ctypes.byref(ctypes.c_char.from_address(ctypes.addressof(self)))


class _CourseEmitter(Emitter):
    """One program on its way into one function of a `TimebaseCell`."""

    def __init__(self, module: ir.Module, program: Program, limit: int) -> None:
        function = ir.Function(module, ir.FunctionType(I1, [POINTER]), f"chronovisor_{program.name}")
        function.return_value.add_attribute("zeroext")
        super().__init__(function, {**PURE_ROWS, **_COURSE_ROWS})
        (cell,) = function.args

        def field(name: str) -> ir.Value:
            return self.at(cell, getattr(TimebaseCell, name).offset)

        def value(name: str) -> ir.Value:
            return self.b.load(field(name), typ=I64)

        self._clock = self.b.inttoptr(value("read_clock"), CLOCK_POINTER)
        self._thread = self.b.inttoptr(value("thread"), POINTER)
        self.operand = value("operand")
        origin = value("origin")
        # TB less the clock, the first reading of the clock, and the last one so far.
        self._ahead = self._kept(self.b.add(origin, value("adjust")))
        self._last = self._kept(word(0))
        self._first: ir.Value | None = None
        self.block(program.body)
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

    def timebase(self) -> ir.Value:
        """TB now."""
        return self.b.add(self._now(), self.b.load(self._ahead, typ=I64))

    def write_tbu40(self, value: ir.Value) -> None:
        """As the register does: the upper 40 bits are the value's, the low 24 tick on."""
        now = self._now()
        timebase = self.b.add(now, self.b.load(self._ahead, typ=I64))
        upper = self.b.and_(value, word(~_LOW_MASK))
        written = self.b.or_(upper, self.b.and_(timebase, word(_LOW_MASK)))
        self.b.store(self.b.sub(written, now), self._ahead)


#: What a course may do besides pure operations.
_COURSE_ROWS: dict[str, Row] = {
    "operand": lambda e, v: e.operand,
    "read_live": lambda e, v: e.timebase(),
    "write_live": lambda e, v, a: e.write_tbu40(a),
}


def compiled(program: Program, limit: int) -> Course:
    """A program of one operand that begins with a reading of TB and may write TBU40. It takes too long if
    `limit` ticks or more pass from that reading to its last access.

    The call keeps the interpreter's lock: it is too short to be worth waiting for the lock again.
    """
    module = ir.Module(program.name)
    module.triple = llvm.get_process_triple()
    _CourseEmitter(module, program, limit)
    kept_for = hashlib.sha256(f"{compiler.fingerprint()}{module}".encode()).hexdigest()[:32]
    code = object_file(program.name, kept_for, lambda: module)
    (address,) = runtime().load(program.name, code, HANDLERS, f"chronovisor_{program.name}")
    return ctypes.PYFUNCTYPE(ctypes.c_bool)(address)
