"""Vector-scalar instructions that move elements about (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


@meaning("xxpermdi")
def xxpermdi(m: Machine, XT: Value, XA: Value, XB: Value, DM: Value) -> None:
    a, b = m.vsr[XA], m.vsr[XB]
    left = m.select(DM.extract(1, 1), a.trunc(64), a.extract(64, 64))
    right = m.select(DM.extract(0, 1), b.trunc(64), b.extract(64, 64))
    m.vsr[XT] = m.concat(left, right)
