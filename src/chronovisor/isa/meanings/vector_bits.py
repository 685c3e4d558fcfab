"""Shifts, rotations and counts of bits in vector elements (Power ISA 3.0B Book I 6.9, 6.12 to 6.16)."""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.elementwise import WIDTHS, elementwise, register_wise
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

for _letter in ("b", "h", "w", "d"):
    _width = WIDTHS[_letter]
    elementwise(f"vsl{_letter}", _width, lambda m, a, b: a << (b & (a.width - 1)))
    elementwise(f"vsr{_letter}", _width, lambda m, a, b: a >> (b & (a.width - 1)))
    elementwise(f"vsra{_letter}", _width, lambda m, a, b: a.ashr(b & (a.width - 1)))
    elementwise(f"vrl{_letter}", _width, lambda m, a, b: _rotated(a, b))
    elementwise(f"vclz{_letter}", _width, lambda m, b: b.clz())
    elementwise(f"vctz{_letter}", _width, lambda m, b: b.ctz())
    elementwise(f"vpopcnt{_letter}", _width, lambda m, b: b.popcount())


def _rotated(value: Value, amount: Value) -> Value:
    """Rotated left by an amount modulo the width."""
    ones = value.width - 1
    return (value << (amount & ones)) | (value >> (-amount & ones))


def _mask(m: Machine, first: Value, last: Value) -> Value:
    """Ones from bit ``first`` through ``last`` of an element, round its end if ``first`` is greater."""
    width = first.width
    from_first = m.value(-1, width) >> first
    to_last = m.value(-1, width) << (width - 1 - last)
    return m.select(last.ult(first), from_first | to_last, from_first & to_last)


def _declare_masked(letter: str, width: int) -> None:
    def parts(m: Machine, a: Value, b: Value) -> tuple[Value, Value]:
        """The rotated element and the mask that the fields of ``b`` describe."""
        ones = width - 1
        return _rotated(a, b), _mask(m, (b >> 16) & ones, (b >> 8) & ones)

    def with_mask(m: Machine, a: Value, b: Value) -> Value:
        rotated, mask = parts(m, a, b)
        return rotated & mask

    def insert(m: Machine, a: Value, b: Value, old: Value) -> Value:
        rotated, mask = parts(m, a, b)
        return (rotated & mask) | (old & ~mask)

    elementwise(f"vrl{letter}nm", width, with_mask)

    @meaning(f"vrl{letter}mi")
    def vrlmi(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
        sources = m.vr[VRA], m.vr[VRB], m.vr[VRT]
        m.vr[VRT] = m.each(width, lambda a, b, old: insert(m, a, b, old), *sources)


_declare_masked("w", 32)
_declare_masked("d", 64)


def _parity(m: Machine, b: Value) -> Value:
    """The parity of the last bits of an element's bytes."""
    last_bits = int.from_bytes(b"\x01" * (b.width // 8), "big")
    return (b & last_bits).popcount() & 1


elementwise("vprtybw", 32, _parity)
elementwise("vprtybd", 64, _parity)
register_wise("vprtybq", _parity)


def _last_bits(m: Machine, VRB: Value) -> Value:
    """The last bits of a register's bytes, the leftmost byte's first."""
    return m.each(8, lambda byte: byte.trunc(1), m.vr[VRB])


@meaning("vclzlsbb")
def vclzlsbb(m: Machine, RT: Value, VRB: Value) -> None:
    m.gpr[RT] = _last_bits(m, VRB).clz().zext(64)


@meaning("vctzlsbb")
def vctzlsbb(m: Machine, RT: Value, VRB: Value) -> None:
    m.gpr[RT] = _last_bits(m, VRB).ctz().zext(64)


def _chosen_bits(m: Machine, source: Value, indexes: Value) -> Value:
    """For each byte of ``indexes``, the bit of ``source`` that it names, 0 if there is none."""
    bits = []
    for low in range(indexes.width - 8, -8, -8):
        index = indexes.extract(low, 8).zext(source.width)
        beyond = source.width - 1
        shift = beyond - index  # large if the index names no bit
        bits.append((source >> shift).trunc(1) & ~index.ugt(beyond))
    return m.concat(*bits)


def _vbpermq(m: Machine, a: Value, b: Value) -> Value:
    return _chosen_bits(m, a, b).zext(64).zext(128) << 64


def _vbpermd(m: Machine, a: Value, b: Value) -> Value:
    halves = [_chosen_bits(m, a.extract(low, 64), b.extract(low, 64)).zext(64) for low in (64, 0)]
    return m.concat(*halves)


register_wise("vbpermq", _vbpermq)
register_wise("vbpermd", _vbpermd)


def _gathered(m: Machine, doubleword: Value) -> Value:
    """Byte n of the result has bit n of each byte: a matrix of 8 by 8 bits turned over, block by block."""
    for shift, upper in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        differs = (doubleword ^ (doubleword >> shift)) & upper
        doubleword = doubleword ^ differs ^ (differs << shift)
    return doubleword


elementwise("vgbbd", 64, _gathered)
