"""Vector-scalar loads and stores (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.floating_point_storage import double_from_single, single_from_double
from chronovisor.isa.meanings.vector_permute import repeated
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

Convert = Callable[[Machine, Value], Value]


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


@meaning("lxv")
def lxv(m: Machine, XT28: Value, RA: Value, DQ: Value) -> None:
    m.vsr[XT28] = m.load(m.base(RA) + DQ, 16)


@meaning("stxv")
def stxv(m: Machine, XS28: Value, RA: Value, DQ: Value) -> None:
    m.store(m.base(RA) + DQ, m.vsr[XS28])


# Scalars lie in the left half. The book leaves the right half undefined; as on hardware it becomes zeros.


def _scalar(value: Value) -> Value:
    return value.zext(64).zext(128) << 64


def _declare_scalar_load(mnemonic: str, size: int, convert: Convert) -> None:
    @meaning(mnemonic)
    def load(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
        m.vsr[XT] = _scalar(convert(m, m.load(m.base(RA) + m.gpr[RB], size)))


def _declare_scalar_store(mnemonic: str, convert: Convert) -> None:
    @meaning(mnemonic)
    def store(m: Machine, XS: Value, RA: Value, RB: Value) -> None:
        m.store(m.base(RA) + m.gpr[RB], convert(m, m.vsr[XS].extract(64, 64)))


_declare_scalar_load("lxsdx", 8, lambda m, value: value)
_declare_scalar_load("lxsspx", 4, double_from_single)
_declare_scalar_load("lxsiwzx", 4, lambda m, value: value)
_declare_scalar_load("lxsiwax", 4, lambda m, value: value.sext(64))
_declare_scalar_load("lxsibzx", 1, lambda m, value: value)
_declare_scalar_load("lxsihzx", 2, lambda m, value: value)
_declare_scalar_store("stxsdx", lambda m, value: value)
_declare_scalar_store("stxsspx", single_from_double)
_declare_scalar_store("stxsiwx", lambda m, value: value.trunc(32))
_declare_scalar_store("stxsibx", lambda m, value: value.trunc(8))
_declare_scalar_store("stxsihx", lambda m, value: value.trunc(16))


def _declare_displaced(suffix: str, size: int, loaded: Convert, stored: Convert) -> None:
    @meaning(f"lxs{suffix}")
    def load(m: Machine, VRT: Value, RA: Value, DS: Value) -> None:
        m.vr[VRT] = _scalar(loaded(m, m.load(m.base(RA) + DS, size)))

    @meaning(f"stxs{suffix}")
    def store(m: Machine, VRS: Value, RA: Value, DS: Value) -> None:
        m.store(m.base(RA) + DS, stored(m, m.vr[VRS].extract(64, 64)))


_declare_displaced("d", 8, lambda m, value: value, lambda m, value: value)
_declare_displaced("sp", 4, double_from_single, single_from_double)


@meaning("lxvdsx")
def lxvdsx(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
    m.vsr[XT] = repeated(m, m.load(m.base(RA) + m.gpr[RB], 8))


@meaning("lxvwsx")
def lxvwsx(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
    m.vsr[XT] = repeated(m, m.load(m.base(RA) + m.gpr[RB], 4))


# With a length, in the first byte of RB: 0 to 16 bytes, as pieces of 16, 8, 4, 2 and 1


def _pieces(m: Machine, RA: Value, RB: Value) -> Iterator[tuple[int, Value, Value]]:
    """Each piece's size, its effective address and how many bytes lie before it."""
    length = m.gpr[RB] >> 56
    length = m.select(length.ugt(16), 16, length)
    ea = m.base(RA)
    for size in (16, 8, 4, 2, 1):
        before = length & (0x1F & -(2 * size))
        with m.when((length & size).ne(0)):
            yield size, ea + before, before


def _declare_with_length(suffix: str, is_left: bool) -> None:
    """Declare a load and a store of part of a register: the left part, or in byte order."""

    def place(m: Machine, size: int, before: Value) -> Value:
        """How far a piece lies from the right, in bits."""
        from_right = before if m.little and not is_left else (16 - size) - before
        return (from_right << 3).zext(128)

    def ordered(m: Machine, value: Value) -> Value:
        return value.byteswap() if m.little and is_left else value

    @meaning(f"lxv{suffix}")
    def load(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
        m.vsr[XT] = 0
        for size, ea, before in _pieces(m, RA, RB):
            m.vsr[XT] = m.vsr[XT] | (ordered(m, m.load(ea, size)).zext(128) << place(m, size, before))

    @meaning(f"stxv{suffix}")
    def store(m: Machine, XS: Value, RA: Value, RB: Value) -> None:
        for size, ea, before in _pieces(m, RA, RB):
            m.store(ea, ordered(m, (m.vsr[XS] >> place(m, size, before)).trunc(8 * size)))


_declare_with_length("l", is_left=False)
_declare_with_length("ll", is_left=True)
