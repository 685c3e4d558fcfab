"""What a page's content is known by.

``content(at)`` is a number of 64 bits, never 0, that is computed from the 4096 bytes there. Two contents have
different numbers, but for an accident that is not expected, or a guest that deceives itself on purpose.
"""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, POINTER, Emitter, word
from chronovisor.engine.native.layout import PAGE_SHIFT

_LANES: Final = 4
"""Sums that do not wait for each other's products."""
_FACTOR: Final = 0x9E37_79B9_7F4A_7C15


def define_content(module: ir.Module) -> ir.Function:
    """Define ``content``."""
    e = Emitter(ir.Function(module, ir.FunctionType(I64, [POINTER]), "chronovisor_content"), {})
    e.function.attributes.add("nounwind")
    b = e.b
    sums = [b.alloca(I64) for _ in range(_LANES)]
    for lane in sums:
        b.store(word(0), lane)

    def add(lane: ir.Value, value: ir.Value) -> None:
        b.store(b.add(b.mul(b.load(lane, typ=I64), word(_FACTOR)), value), lane)

    with e.each(word((1 << PAGE_SHIFT) // (8 * _LANES))) as number:
        at = e.at(e.function.args[0], b.mul(number, word(8 * _LANES)))
        for place, lane in enumerate(sums):
            add(lane, b.load(e.at(at, 8 * place), typ=I64))
    for lane in sums[1:]:
        add(sums[0], b.load(lane, typ=I64))
    b.ret(b.or_(b.load(sums[0], typ=I64), word(1)))
    return e.function
