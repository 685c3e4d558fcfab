"""The notation of meanings: what ``m`` offers to an instruction's definition.

``m.gpr[RT] = m.gpr[RA] + m.gpr[RB]`` reads as the book's register transfer language does. Everything
is recorded in a :class:`~chronovisor.isa.values.Trace`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from chronovisor.isa.bits import FPSCR, FSCR, MSR, XER, ProgramCause
from chronovisor.isa.ieee import IEEE, RAISED_WIDTH, ROUNDING_WIDTH
from chronovisor.isa.ieee.rounding import OVERFLOW_ENABLED, UNDERFLOW_ENABLED
from chronovisor.isa.registers import FILES, REGISTERS, VIEWS, Privilege, Register, RegisterFile
from chronovisor.isa.source_lines import NOTATION
from chronovisor.isa.values import Operand, Trace, Value, mask

NOTATION.add(__file__)


class Registers:
    """``m.gpr[RA]``, ``m.vsr[XA]``: the registers of a file."""

    def __init__(self, trace: Trace, file: RegisterFile) -> None:
        self._trace = trace
        self._file = file

    def __getitem__(self, number: Operand) -> Value:
        args = (self._trace.value(number, 64),)
        return self._trace.emit("read_file", self._file.width, args, self._file.name)

    def __setitem__(self, number: Operand, value: Operand) -> None:
        args = (self._trace.value(number, 64), self._trace.value(value, self._file.width))
        self._trace.emit("write_file", 0, args, self._file.name)


class FloatingPointRegisters:
    """``m.fpr[FRT]``: a floating-point register, the upper half (64 bits) of a vector-scalar register."""

    def __init__(self, vsr: Registers) -> None:
        self._vsr = vsr

    def __getitem__(self, number: Operand) -> Value:
        return self._vsr[number].extract(VIEWS["FPR"].low, VIEWS["FPR"].width)

    def __setitem__(self, number: Operand, value: Value) -> None:
        # The book leaves the lower half undefined. As on hardware it becomes zeros.
        self._vsr[number] = value.zext(128) << VIEWS["FPR"].low


class VectorRegisters:
    """``m.vr[VRT]``: a vector register, 128 bits, which is one of the upper 32 vector-scalar registers."""

    def __init__(self, m: Machine) -> None:
        self._m = m

    def _number(self, number: Operand) -> Value:
        return self._m.value(number) | VIEWS["VR"].first

    def __getitem__(self, number: Operand) -> Value:
        return self._m.vsr[self._number(number)]

    def __setitem__(self, number: Operand, value: Operand) -> None:
        self._m.vsr[self._number(number)] = value


class ConditionFields:
    """``m.cr[BF]``: a field of the condition register, 4 bits: LT GT EQ SO."""

    def __init__(self, m: Machine) -> None:
        self._m = m

    def _shift(self, number: Operand) -> Value:
        return ((7 - self._m.value(number)) << 2).trunc(32)

    def __getitem__(self, number: Operand) -> Value:
        return (self._m["CR"] >> self._shift(number)).trunc(4)

    def __setitem__(self, number: Operand, value: Value) -> None:
        shift = self._shift(number)
        hole = ~(self._m.value(0xF, 32) << shift)
        self._m["CR"] = (self._m["CR"] & hole) | (value.zext(32) << shift)


class ConditionBits:
    """``m.cr_bit[BI]``: a bit of the condition register."""

    def __init__(self, m: Machine) -> None:
        self._m = m

    def _shift(self, number: Operand) -> Value:
        return (31 - self._m.value(number)).trunc(32)

    def __getitem__(self, number: Operand) -> Value:
        return (self._m["CR"] >> self._shift(number)).trunc(1)

    def __setitem__(self, number: Operand, value: Value) -> None:
        shift = self._shift(number)
        hole = ~(self._m.value(1, 32) << shift)
        self._m["CR"] = (self._m["CR"] & hole) | (value.zext(32) << shift)


class Machine:
    """A thread, as a meaning sees it.

    ``sixty_four`` (MSR[SF]) and ``little`` (MSR[LE]) are known when a meaning is traced, so a meaning
    may branch on them in Python; all else is a :class:`Value`.
    """

    def __init__(self, sixty_four: bool = True, little: bool = False) -> None:
        self.trace = Trace()
        #: The least privilege with which the meaning continues, as far as it has been traced.
        self.needs = Privilege.PROBLEM
        self.sixty_four = sixty_four
        self.little = little
        self.gpr = Registers(self.trace, FILES["GPR"])
        self.vsr = Registers(self.trace, FILES["VSR"])
        self.fpr = FloatingPointRegisters(self.vsr)
        self.vr = VectorRegisters(self)
        self.cr = ConditionFields(self)
        self.cr_bit = ConditionBits(self)

    # Values

    def operand(self, name: str) -> Value:
        """The instruction's field ``name``, 64 bits."""
        return self.trace.emit("operand", 64, (), name)

    def value(self, operand: Operand, width: int = 64) -> Value:
        """A number or value as a value of ``width`` bits."""
        return self.trace.value(operand, width)

    def select(self, condition: Value, yes: Operand, no: Operand, width: int = 64) -> Value:
        """``yes`` if the 1-bit ``condition`` is 1, else ``no``; ``width`` matters for two numbers."""
        if isinstance(yes, Value):
            width = yes.width
        elif isinstance(no, Value):
            width = no.width
        args = (self.value(condition, 1), self.value(yes, width), self.value(no, width))
        return self.trace.emit("select", width, args)

    def concat(self, *parts: Value) -> Value:
        """The parts side by side, most significant first."""
        whole = parts[0]
        for part in parts[1:]:
            whole = self.trace.emit("concat", whole.width + part.width, (whole, part))
        return whole

    def each(self, width: int, function: Callable[..., Value], *operands: Value) -> Value:
        """``function`` of each lane of ``width`` bits of the operands; the results side by side."""
        return self.trace.each(width, function, *operands)

    def rotl(self, value: Value, amount: Operand) -> Value:
        """Rotated left by ``amount`` modulo the value's width, which must be a power of two."""
        by = (
            self.value(amount, 64).trunc(value.width)
            if isinstance(amount, Value)
            else self.value(amount, value.width)
        )
        by = by & (value.width - 1)
        return (value << by) | (value >> ((value.width - by) & (value.width - 1)))

    def mask(self, first: Operand, last: Operand) -> Value:
        """MASK(first, last) of the book: ones from bit ``first`` through ``last`` of 64, wrapping round."""
        ones = self.value((1 << 64) - 1)
        from_first = ones >> self.value(first)
        to_last = ones << (63 - self.value(last))
        wraps = self.value(last).ult(self.value(first))
        return self.select(wraps, from_first | to_last, from_first & to_last)

    def random(self) -> Value:
        """64 random bits."""
        return self.trace.emit("random", 64)

    def ieee(self, name: str, *operands: Operand) -> tuple[Value, Value]:
        """IEEE arithmetic: its result, and the bits of FPSCR that it raises (64 bits).

        ``name`` is one of ``chronovisor.isa.ieee.IEEE``. The last operand of all but comparisons is the
        rounding mode: 64 bits of FPSCR, of which RN counts, a number of ``Rounding``, known or not, or
        `rounding`.
        """
        operation = IEEE[name]
        values = []
        for operand, width in zip(operands, operation.operands, strict=True):
            if width == ROUNDING_WIDTH and isinstance(operand, Value) and operand.width != width:
                operand = (operand & int(FPSCR.RN)).trunc(ROUNDING_WIDTH)
            values.append(self.value(operand, width))
        both = self.trace.emit("ieee", operation.width + RAISED_WIDTH, tuple(values), name)
        return both.trunc(operation.width), both.extract(operation.width, RAISED_WIDTH).zext(64)

    def rounding(self) -> Value:
        """How FPSCR has scalar arithmetic round: RN, and above it whether UX and OX are enabled."""
        fpscr = self["FPSCR"]
        enabled = (fpscr >> 2) & (UNDERFLOW_ENABLED | OVERFLOW_ENABLED)
        return ((fpscr & int(FPSCR.RN)) | enabled).trunc(ROUNDING_WIDTH)

    # Control

    def when(self, condition: Value) -> AbstractContextManager[None]:
        """What is done inside happens only if ``condition`` is 1."""
        return self.trace.when(condition)

    def interrupt(self, name: str, cause: Operand = 0) -> None:
        """End the instruction in the interrupt ``name``; ``cause`` goes into SRR1."""
        self.trace.emit("interrupt", 0, (self.value(cause),), name)

    def facility_unavailable(self, facility: FSCR) -> None:
        """End the instruction as one of a facility that is off; FSCR's first byte tells which (6.2.10)."""
        cause = int(facility).bit_length() - 1
        self["FSCR"] = (self["FSCR"] & ((1 << 56) - 1)) | (cause << 56)
        self.interrupt("FACILITY_UNAVAILABLE")

    def illegal(self) -> None:
        """End the instruction as one that does not exist."""
        self.interrupt("PROGRAM", int(ProgramCause.ILLEGAL))

    def privileged(self, needed: Privilege = Privilege.PRIVILEGED) -> None:
        """Continue only with the privilege that the instruction needs."""
        self.needs = max(self.needs, needed)
        msr = self["MSR"]
        lacks = (msr & int(MSR.PR)).ne(0)
        if needed is Privilege.HYPERVISOR:
            lacks = lacks | (msr & int(MSR.HV)).eq(0)
        with self.when(lacks):
            self.interrupt("PROGRAM", int(ProgramCause.PRIVILEGED))

    def facility(self, needed: FSCR) -> None:
        """Continue only if problem state may use the facility."""
        with self.when((self["MSR"] & int(MSR.PR)).ne(0) & (self["FSCR"] & int(needed)).eq(0)):
            self.facility_unavailable(needed)

    def branch(self, target: Value) -> None:
        """The next instruction is at ``target``."""
        target = target & ~3
        self["NIA"] = target if self.sixty_four else target & 0xFFFFFFFF

    def resync(self) -> None:
        """Evaluate again what depends on the machine state before the next instruction."""
        self.trace.emit("resync", 0)

    # Registers

    def __getitem__(self, name: str) -> Value:
        register = REGISTERS[name]
        return self.trace.emit("read_live" if register.live else "get", register.width, (), name)

    def __setitem__(self, name: str, value: Operand) -> None:
        register = REGISTERS[name]
        args = (self.trace.value(value, register.width),)
        self.trace.emit("write_live" if register.live else "set", 0, args, name)

    def register(self, register: Register) -> Value:
        """A register's value, or an alias's, zero-extended to 64 bits."""
        if register.alias_of is None:
            return self[register.name].zext(64)
        return self[register.alias_of].extract(register.alias_from, register.width).zext(64)

    def set_register(self, register: Register, value: Value, changeable: Value | None = None) -> None:
        """A register, or what an alias names, becomes the low bits of ``value``, 64 bits.

        ``changeable``, 64 bits, has ones in the bits that change; None: all that the table lets change.
        """
        whole = REGISTERS[register.alias_of or register.name]
        part = mask(register.width) << register.alias_from
        fixed = ~(part & register.writable) & whole.mask
        new = (value << register.alias_from).trunc(whole.width)
        if changeable is not None:
            old = self[whole.name]
            allowed = (changeable << register.alias_from).trunc(whole.width) & ~fixed
            new = (old & ~allowed) | (new & allowed)
        elif fixed:
            new = (self[whole.name] & fixed) | (new & ~fixed)
        self[whole.name] = new

    def base(self, number: Operand) -> Value:
        """(RA|0): zero if the field is zero, else the register."""
        field = self.value(number)
        return self.select(field.eq(0), 0, self.gpr[field])

    # Flags

    def xer_bit(self, bit: XER) -> Value:
        """One bit of XER."""
        return self["XER"].extract(int(bit).bit_length() - 1, 1)

    def set_xer(self, **bits: Value) -> None:
        """Set bits of XER by name: ``m.set_xer(CA=carry, CA32=carry32)``."""
        hole = 0
        ones = self.value(0)
        for name, bit in bits.items():
            position = int(XER[name])
            hole |= position
            ones = ones | (bit.zext(64) << (position.bit_length() - 1))
        self["XER"] = (self["XER"] & ~hole) | ones

    def compare(self, less: Value, equal: Value) -> Value:
        """The 4 bits LT GT EQ SO for a comparison's outcome."""
        return self.concat(less, ~(less | equal), equal, self.xer_bit(XER.SO))

    def record(self, result: Value) -> None:
        """CR field 0 from a result compared with zero, in the width of the mode."""
        seen = result if self.sixty_four else result.trunc(32)
        self.cr[0] = self.compare(seen.slt(0), seen.eq(0))

    # Memory

    def data_address(self, ea: Value) -> Value:
        """What DAR says of an effective address: its upper half is 0 in 32-bit mode (Book III 6.2.4)."""
        return ea if self.sixty_four else ea & 0xFFFFFFFF

    def alignment(self, ea: Value) -> None:
        """End the instruction in an alignment interrupt for the operand at ``ea`` (Book III 6.5.8)."""
        self["DAR"] = self.data_address(ea)
        self.interrupt("ALIGNMENT")

    def aligned(self, ea: Value, size: int) -> None:
        """Continue only if ``ea`` is a multiple of ``size`` bytes, a power of two."""
        if size > 1:
            with self.when((ea & (size - 1)).ne(0)):
                self.alignment(ea)

    def load(self, ea: Value, size: int) -> Value:
        """``size`` bytes at an effective address, as a value of that width."""
        return self.trace.emit("load", size * 8, (ea,))

    def store(self, ea: Value, value: Value) -> None:
        """Memory at an effective address becomes ``value``, as wide as it is."""
        self.trace.emit("store", 0, (ea, value))

    def load_reserved(self, ea: Value, size: int) -> Value:
        """Load, and make a reservation."""
        return self.trace.emit("load_reserved", size * 8, (ea,))

    def store_conditional(self, ea: Value, value: Value) -> Value:
        """Store if the reservation holds; 1 bit: it did."""
        return self.trace.emit("store_conditional", 1, (ea, value))

    def invalidate_code(self, ea: Value) -> None:
        """Instructions fetched from the block that holds ``ea`` are forgotten."""
        self.trace.emit("invalidate_code", 0, (ea,))

    def zero_block(self, ea: Value) -> None:
        """The cache block that holds ``ea`` becomes zeros."""
        self.trace.emit("zero_block", 0, (ea,))

    def barrier(self, kind: str) -> None:
        """Order accesses: all ("full"), or all but a store and a later load ("light")."""
        self.trace.emit("barrier", 0, (), kind)

    def probe(self, ea: Value, access: str) -> None:
        """Check that a byte can be accessed ("load" or "store") without touching it."""
        self.trace.emit("probe", 0, (ea,), access)

    # Address translation

    def load_real(self, address: Value) -> Value:
        """The big-endian doubleword at a real address; 0 if it lies outside memory."""
        return self.trace.emit("load_real", 64, (address,))

    def store_real(self, address: Value, value: Value | int) -> None:
        """Store a doubleword at a real address, big-endian; nothing if there is no memory."""
        self.trace.emit("store_real", 0, (address, self.value(value)))

    def update_real(self, address: Value, old: Value, new: Value) -> None:
        """Replace the big-endian doubleword at a real address, or start anew if it is no longer ``old``."""
        self.trace.emit("update_real", 0, (address, old, new))

    def translated(self, real: Value, size: Value, loads: Value) -> None:
        """End a translation: the real address, log2 of the page's size in bytes, and whether the page may be
        loaded from (1 bit).
        """
        self.trace.emit("translated", 0, (real, size, loads))

    def new_context(self, register: str) -> None:
        """A register changed that address translation depends on."""
        self.trace.emit("new_context", 0, (), register)

    def forget_translations(self, whose: str, process: Value, first: Value, last: Value) -> None:
        """End in an invalidation of the effective pages of 4 KiB from ``first`` to ``last``.

        Every thread ("all") or this one ("own") forgets what it translated for the process; all ones stand
        for every process.
        """
        self.trace.emit("forget_translations", 0, (process, first, last), whose)

    def await_invalidations(self) -> None:
        """Wait until no thread uses what this one had it forget."""
        self.trace.emit("await_invalidations", 0, ())
