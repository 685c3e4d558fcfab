"""Bitwise vector and vector-scalar instructions (Power ISA 3.0B Book I 6.9.4, 7.6.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_OPERATIONS: Final[dict[str, Callable[[Value, Value], Value]]] = {
    "and": lambda a, b: a & b,
    "andc": lambda a, b: a & ~b,
    "or": lambda a, b: a | b,
    "orc": lambda a, b: a | ~b,
    "nor": lambda a, b: ~(a | b),
    "xor": lambda a, b: a ^ b,
    "nand": lambda a, b: ~(a & b),
    "eqv": lambda a, b: ~(a ^ b),
}


def _declare(name: str, compute: Callable[[Value, Value], Value]) -> None:
    @meaning(f"v{name}")
    def vector(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
        m.vr[VRT] = compute(m.vr[VRA], m.vr[VRB])

    @meaning(f"xxl{name}")
    def vector_scalar(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
        m.vsr[XT] = compute(m.vsr[XA], m.vsr[XB])


for _name, _compute in _OPERATIONS.items():
    _declare(_name, _compute)
