"""The statements of meanings in a function of a region: what of them is done, and when.

Reading CR or XER waits until it is known which bits are wanted. What depends on its operands alone waits
until something needs it: meanings compute more than is needed, like a field of CR that the next instruction
sets anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from llvmlite import ir

from chronovisor.engine.native.emitter import Rows
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions import bit_registers
from chronovisor.engine.regions.bit_registers import Compared, Comparison, Extracted, Maker, PartedRegister
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.registers import ADDRESSES, SUMMARY_OVERFLOW, RegisterLowering
from chronovisor.engine.regions.tight_loops import Loop
from chronovisor.isa.values import Value, When, mask

#: Operations that are done only if something needs their values, as not all is that meanings compute: those
#: that depend on their operands alone, and are an instruction or two of the machine's.
_LATER = frozenset(
    {"operand", "const", "add", "sub", "mul", "and", "or", "xor", "not", "shl", "lshr", "ashr"}
    | {"eq", "ult", "slt", "select", "zext", "sext", "extract", "concat"}
)


def _whole(v: Value) -> Value | None:
    """What is read or set as a whole by a statement that may be one about single bits."""
    while True:
        if bit_registers.is_read(v) or (v.op == "set" and v.detail in bit_registers.NAMES):
            return v
        if v.op not in ("lshr", "and", "or", "extract"):
            return None
        v = v.args[0]


class StatementLowering(RegisterLowering):
    """Programs on their way into a function of a region, as far as their statements are concerned."""

    def __init__(
        self, module: ir.Module, name: str, mode: Mode, rows: Rows, sites: Mapping[int, Site], loop: Loop
    ) -> None:
        super().__init__(module, name, mode, rows, sites, loop)
        #: Values of registers kept bit by bit, which are made only if something needs them: the register, and
        #: its version then.
        self._deferred: dict[int, tuple[PartedRegister, int]] = {}

    def _when(self, guarded: When) -> None:
        """Do statements under a condition: what is made for them is known within it alone."""
        before = dict(self.values), dict(self._deferred)
        super()._when(guarded)
        self.values, self._deferred = before

    def statement(self, v: Value) -> None:
        """Do one statement, unless it can wait until something needs its value."""
        if self.is_hosted(v):
            return
        later = v.op in _LATER or (v.op == "get" and v.detail in ADDRESSES)
        if self.lanes or not (self._bit_statement(v) or later):
            self.by_operation(v)

    def value(self, value: Value) -> ir.Value:
        """The LLVM value of a traced one."""
        deferred = self._deferred.pop(id(value), None)
        if deferred is not None:
            register, version = deferred
            assert version == register.version, "the register was written in between"
            few = self._few_bits(value, register)
            if few is not None:
                self.values[id(value)] = few
            elif bit_registers.is_read(value):
                self.values[id(value)] = register.whole()
            else:
                self.by_operation(value)
        elif id(value) not in self.values:
            self._make(value)
        return super().value(value)

    def _make(self, v: Value) -> None:
        """Make a value that waited; one that the instruction determines is a constant."""
        known = self.site.constant(v)
        if known is None:
            self.by_operation(v)
        else:
            self.values[id(v)] = ir.Constant(ir.IntType(v.width), known)

    def _few_bits(self, v: Value, register: PartedRegister) -> ir.Value | None:
        """The bits of a constant mask of a register that was read, if they are made of few parts of it."""
        if v.op != "and" or not bit_registers.is_read(v.args[0]):
            return None
        ones = self.site.constant(v.args[1])
        return None if ones is None else register.few(ones)

    def _bit_statement(self, v: Value) -> bool:
        """Do a statement about a register that is kept bit by bit; False if that is not possible."""
        read = _whole(v)
        register = None if read is None else self._bits.get(str(read.detail))
        if register is None:
            return False
        if v.op == "set":
            self._set_bits(v, register)
            return True
        if v.op == "extract":
            shift = self._shift(v.args[0])
            if shift is None:
                return False
            assert isinstance(v.detail, int)
            self.values[id(v)] = register.part(shift + v.detail, v.width)
            return True
        if v.op in ("lshr", "and") and self.site.constant(v.args[1]) is None:
            return False
        if v.op == "or" and bit_registers.replaced(self.site, v) is None:
            return False
        self._deferred[id(v)] = register, register.version
        return True

    def _set_bits(self, v: Value, register: PartedRegister) -> None:
        found = bit_registers.replaced(self.site, v.args[0])
        if found is None or found[0] != v.detail:
            register.replace(mask(v.args[0].width), partial(self.value, v.args[0]))
        else:
            new = found[2]
            register.replace(found[1], partial(self.value, new), self._compared(new) or self._extracted(new))

    def _extracted(self, v: Value) -> Extracted:
        """What bits of XER are extracted from."""
        found = bit_registers.extracted(self.site, v)
        return Extracted({number: (self.value(value), inside) for number, value, inside in found})

    def _compared(self, v: Value) -> Compared | None:
        """The outcome of a comparison that sets a field of CR."""
        found = bit_registers.field_comparison(self.site, v)
        if found is None:
            return None
        less, equal = map(self.value, found[:2])
        one, other = map(self.value, found[0].args)
        return Compared(less, equal, *self._overflow(found[2]), (one, other), Comparison.of(found[0]))

    def _overflow(self, v: Value) -> tuple[Maker, bool]:
        """What makes SO's value, and whether it may be read later: if the function leaves XER alone."""
        now = self.value(v)
        if bit_registers.read_again(v) != SUMMARY_OVERFLOW or self.changes_overflow:
            return lambda: now, False
        return self.summary_overflow, True

    def _shift(self, v: Value) -> int | None:
        """By how many bits a register that was read is shifted; None if the value is no such register."""
        if bit_registers.is_read(v):
            return 0
        is_shifted = v.op == "lshr" and bit_registers.is_read(v.args[0]) and id(v) in self._deferred
        return self.site.constant(v.args[1]) if is_shifted else None
