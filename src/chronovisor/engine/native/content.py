"""What a page's content is known by.

``content(at)`` is a number of 64 bits, never 0, that is computed from the 4096 bytes there. Two contents have
different numbers, but for an accident that is not expected, or a guest that deceives itself on purpose.
"""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, POINTER, Emitter, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.target_processor import target_has

_FACTOR: Final = 0x9E37_79B9_7F4A_7C15
_OTHER_FACTOR: Final = 0xC2B2_AE3D_27D4_EB4F
_MASK: Final = (1 << 64) - 1
_PAIR: Final = ir.VectorType(I64, 2)


def has_rounds() -> bool:
    """Whether this machine has an instruction for a round of AES."""
    return target_has("aes")


class _Mixing(Emitter):
    """Sums of words, several so that they do not wait for each other. A sum never loses what was added."""

    kind: ir.Type = I64
    size, lane_count = 8, 4

    def beginning(self, lane: int) -> ir.Constant:
        """A sum of nothing."""
        return word(lane)

    def add(self, total: ir.Value, value: ir.Value) -> ir.Value:
        """A sum with something more."""
        return self._added(total, _FACTOR, 32, value)

    def join(self, total: ir.Value, lane: ir.Value) -> ir.Value:
        """One sum of two lanes'. By another factor: else a word could change places with the next row's."""
        return self._added(total, _OTHER_FACTOR, 29, lane)

    def _added(self, total: ir.Value, factor: int, shift: int, value: ir.Value) -> ir.Value:
        # A product alone would not bring upper bits down: two of them could undo each other.
        mixed = self.b.xor(total, self.b.lshr(total, word(shift)))
        return self.b.add(self.b.mul(mixed, word(factor)), value)

    def number(self, total: ir.Value) -> ir.Value:
        """The number of 64 bits that a sum of all becomes."""
        return total


class _MixingByRounds(_Mixing):
    """The same by this machine's instruction for a round of AES, which mixes 16 bytes at once."""

    kind = _PAIR
    size, lane_count = 16, 8

    def beginning(self, lane: int) -> ir.Constant:
        """A sum of nothing. A round keeps what is alike alike, so its four columns differ."""
        return ir.Constant(_PAIR, [_FACTOR + lane, _FACTOR * (lane + 2) & _MASK])

    def add(self, total: ir.Value, value: ir.Value) -> ir.Value:
        """A sum with something more."""
        kind = ir.FunctionType(_PAIR, [_PAIR, _PAIR])
        mix = self.function.module.declare_intrinsic("llvm.x86.aesni.aesenc", (), kind)
        return self.b.call(mix, [total, value])

    def join(self, total: ir.Value, lane: ir.Value) -> ir.Value:
        """One sum of two lanes'. By a round more: else changes of two lanes could undo each other."""
        return self.add(self.add(total, self.beginning(0)), lane)

    def number(self, total: ir.Value) -> ir.Value:
        """The number of 64 bits that a sum of all becomes."""
        # Each byte has gone into all others after two rounds.
        for lane in range(2):
            total = self.add(total, self.beginning(lane))
        halves = (self.b.extract_element(total, word(n)) for n in range(2))
        return self.b.xor(*halves)


def define_content(module: ir.Module) -> ir.Function:
    """Define ``content``."""
    kind = _MixingByRounds if has_rounds() else _Mixing
    e = kind(ir.Function(module, ir.FunctionType(I64, [POINTER]), "chronovisor_content"), {})
    e.function.attributes.add("nounwind")
    b = e.b
    sums = [b.alloca(e.kind) for _ in range(e.lane_count)]
    for number, lane in enumerate(sums):
        b.store(e.beginning(number), lane)
    row = e.size * e.lane_count
    with e.each(word((1 << PAGE_SHIFT) // row)) as done:
        at = e.at(e.function.args[0], b.mul(done, word(row)))
        for place, lane in enumerate(sums):
            value = b.load(e.at(at, e.size * place), typ=e.kind)
            value.align = 8
            b.store(e.add(b.load(lane, typ=e.kind), value), lane)
    total, *others = (b.load(lane, typ=e.kind) for lane in sums)
    for lane in others:
        total = e.join(total, lane)
    found = e.number(total)
    b.ret(b.select(b.icmp_unsigned("==", found, word(0)), word(1), found))
    return e.function
