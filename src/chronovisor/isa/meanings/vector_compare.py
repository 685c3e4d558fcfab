"""Vector integer comparisons (Power ISA 3.0B Book I 6.9.3)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.elementwise import WIDTHS
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

Relation = Callable[[Value, Value], Value]


def set_cr6(m: Machine, holds: Value) -> None:
    """CR field 6: whether a comparison holds for all elements, and whether it holds for none."""
    none = holds.eq(0)
    m.cr[6] = m.concat((~holds).eq(0), m.value(0, 1), none, m.value(0, 1))


def _declare(mnemonic: str, width: int, relation: Relation) -> None:
    @meaning(mnemonic)
    def compare(m: Machine, VRT: Value, VRA: Value, VRB: Value, Rc21: int) -> None:
        result = m.each(width, lambda a, b: relation(a, b).sext(width), m.vr[VRA], m.vr[VRB])
        m.vr[VRT] = result
        if Rc21:
            set_cr6(m, result)


for _letter in ("b", "h", "w", "d"):
    _declare(f"vcmpequ{_letter}", WIDTHS[_letter], lambda a, b: a.eq(b))
    _declare(f"vcmpgtu{_letter}", WIDTHS[_letter], lambda a, b: a.ugt(b))
    _declare(f"vcmpgts{_letter}", WIDTHS[_letter], lambda a, b: a.sgt(b))

for _letter in ("b", "h", "w"):
    _declare(f"vcmpne{_letter}", WIDTHS[_letter], lambda a, b: a.ne(b))
    _declare(f"vcmpnez{_letter}", WIDTHS[_letter], lambda a, b: a.ne(b) | a.eq(0) | b.eq(0))
