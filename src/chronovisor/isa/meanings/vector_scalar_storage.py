"""Vector-scalar loads and stores (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


def in_order(m: Machine, quadword: Value, size: int) -> Value:
    """The elements of ``size`` bytes of a quadword in memory, each in the thread's byte order.

    The elements of a register go from left to right as those in memory go up. ``quadword`` is all 16 bytes in
    the thread's byte order. The function is its own inverse.
    """
    if not m.little or size == 16:
        return quadword
    width = 8 * size
    return m.concat(*(quadword.extract(low, width) for low in range(0, 128, width)))


def _declare_elements(mnemonic: str, size: int) -> None:
    @meaning(f"l{mnemonic}")
    def load(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
        m.vsr[XT] = in_order(m, m.load(m.base(RA) + m.gpr[RB], 16), size)

    @meaning(f"st{mnemonic}")
    def store(m: Machine, XS: Value, RA: Value, RB: Value) -> None:
        m.store(m.base(RA) + m.gpr[RB], in_order(m, m.vsr[XS], size))


_declare_elements("xvd2x", 8)
_declare_elements("xvw4x", 4)
_declare_elements("xvh8x", 2)
_declare_elements("xvb16x", 1)
_declare_elements("xvx", 16)
