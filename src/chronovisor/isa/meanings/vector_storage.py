"""Vector loads and stores (Power ISA 3.0B Book I 6.7)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_ONES = int.from_bytes(b"\x01" * 16, "big")
_COUNTING = int.from_bytes(bytes(range(16)), "big")


def _indexed(m: Machine, RA: Value, RB: Value, size: int) -> Value:
    """The effective address, whose last bits are ignored: the operand is aligned."""
    return (m.base(RA) + m.gpr[RB]) & ~(size - 1)


def _declare_quadword(suffix: str) -> None:
    @meaning(f"lv{suffix}")
    def load(m: Machine, VRT: Value, RA: Value, RB: Value) -> None:
        m.vr[VRT] = m.load(_indexed(m, RA, RB, 16), 16)

    @meaning(f"stv{suffix}")
    def store(m: Machine, VRS: Value, RA: Value, RB: Value) -> None:
        m.store(_indexed(m, RA, RB, 16), m.vr[VRS])


_declare_quadword("x")
_declare_quadword("xl")  # with a hint about caches


def _declare_element(letter: str, size: int) -> None:
    width = 8 * size

    def place(m: Machine, ea: Value) -> Value:
        """How far the element of the address lies from the right of a register, in bits."""
        from_left = (ea & (16 - size)) << 3
        return (from_left if m.little else (128 - width) - from_left).zext(128)

    @meaning(f"lve{letter}x")
    def load(m: Machine, VRT: Value, RA: Value, RB: Value) -> None:
        # The book leaves the other elements undefined. Here they stay.
        ea = _indexed(m, RA, RB, size)
        element, at = m.load(ea, size).zext(128), place(m, ea)
        hole = ~(m.value((1 << width) - 1, 128) << at)
        m.vr[VRT] = (m.vr[VRT] & hole) | (element << at)

    @meaning(f"stve{letter}x")
    def store(m: Machine, VRS: Value, RA: Value, RB: Value) -> None:
        ea = _indexed(m, RA, RB, size)
        m.store(ea, (m.vr[VRS] >> place(m, ea)).trunc(width))


_declare_element("b", 1)
_declare_element("h", 2)
_declare_element("w", 4)


@meaning("lvsl")
def lvsl(m: Machine, VRT: Value, RA: Value, RB: Value) -> None:
    sh = ((m.base(RA) + m.gpr[RB]) & 15).zext(128)
    m.vr[VRT] = sh * _ONES + _COUNTING


@meaning("lvsr")
def lvsr(m: Machine, VRT: Value, RA: Value, RB: Value) -> None:
    sh = ((m.base(RA) + m.gpr[RB]) & 15).zext(128)
    m.vr[VRT] = (_COUNTING + 16 * _ONES) - sh * _ONES


@meaning("mfvscr")
def mfvscr(m: Machine, VRT: Value) -> None:
    m.vr[VRT] = m["VSCR"].zext(128)


@meaning("mtvscr")
def mtvscr(m: Machine, VRB: Value) -> None:
    m["VSCR"] = m.vr[VRB].trunc(32)
