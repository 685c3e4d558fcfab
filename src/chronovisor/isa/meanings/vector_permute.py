"""Vector instructions that move elements about (Power ISA 3.0B Book I 6.8)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


def permuted(m: Machine, left: Value, right: Value, selectors: Value) -> Value:
    """Each byte is the one of the 32 bytes of ``left`` and ``right`` that its selector's last 5 bits name."""
    out = []
    for low in range(120, -8, -8):
        selector = selectors.extract(low, 5)
        chosen = m.select(selector.extract(4, 1), right, left)
        out.append((chosen >> ((15 - selector.trunc(4)).zext(128) << 3)).trunc(8))
    return m.concat(*out)


@meaning("vperm")
def vperm(m: Machine, VRT: Value, VRA: Value, VRB: Value, VRC: Value) -> None:
    m.vr[VRT] = permuted(m, m.vr[VRA], m.vr[VRB], m.vr[VRC])
