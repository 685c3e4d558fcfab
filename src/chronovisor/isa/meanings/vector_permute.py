"""Vector instructions that move bytes and elements about (Power ISA 3.0B Book I 6.8, 6.14)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.elementwise import WIDTHS, limits, register_wise, saturated, widened
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


def element(value: Value, width: int, number: int) -> Value:
    """Element ``number`` of a register, counted from the left."""
    return value.extract(value.width - width * (number + 1), width)


def permuted(m: Machine, left: Value, right: Value, selectors: Value) -> Value:
    """Each byte is the one of the 32 bytes of ``left`` and ``right`` that its selector's last 5 bits name."""
    from_right = ~selectors
    one, other = left.permute(from_right), right.permute(from_right)
    return m.each(8, lambda s, a, b: m.select(s.extract(4, 1), b, a), selectors, one, other)


def reversely_permuted(m: Machine, left: Value, right: Value, selectors: Value) -> Value:
    """As `permuted`, with selectors that count from the right."""
    return permuted(m, left, right, ~selectors)


register_wise("vperm", permuted)
register_wise("vpermr", reversely_permuted)
register_wise("vsel", lambda m, a, b, c: (a & ~c) | (b & c))

# Pack and unpack


def _pack(mnemonic: str, width: int, narrow: Callable[[Machine, Value], Value]) -> None:
    """Declare an instruction whose target has all elements of both sources in half their width."""
    register_wise(mnemonic, lambda m, a, b: m.concat(narrow(m, a), narrow(m, b)))


def _declare_packs(letter: str, width: int) -> None:
    half = width // 2
    _pack(f"vpku{letter}um", width, lambda m, source: m.each(width, lambda e: e.trunc(half), source))
    for signs in ("uu", "su", "ss"):
        source_signed, target_signed = (sign == "s" for sign in signs)
        _declare_saturating_pack(f"vpk{signs[0]}{letter}{signs[1]}s", width, source_signed, target_signed)


def _declare_saturating_pack(mnemonic: str, width: int, source_signed: bool, target_signed: bool) -> None:
    low, high = limits(width // 2, target_signed)

    def narrow(m: Machine, source: Value) -> Value:
        exact = lambda m, element: widened(element, 2 * width, source_signed)  # noqa: E731
        return saturated(m, width, low, high, exact, source)

    _pack(mnemonic, width, narrow)


def _declare_unpacks(letter: str, width: int) -> None:
    def unpacked(m: Machine, half: Value) -> Value:
        return m.each(width, lambda element: element.sext(2 * width), half)

    register_wise(f"vupkhs{letter}", lambda m, b: unpacked(m, b.extract(64, 64)))
    register_wise(f"vupkls{letter}", lambda m, b: unpacked(m, b.trunc(64)))


for _letter in ("h", "w", "d"):
    _declare_packs(_letter, WIDTHS[_letter])
for _letter in ("b", "h", "w"):
    _declare_unpacks(_letter, WIDTHS[_letter])

# Pixels: 8 bits of 1, and three channels of 8 bits of which 5 are kept


def _packed_pixels(m: Machine, source: Value) -> Value:
    def narrow(pixel: Value) -> Value:
        return m.concat(*(pixel.extract(low, size) for low, size in ((24, 1), (19, 5), (11, 5), (3, 5))))

    return m.each(32, narrow, source)


def _unpacked_pixels(m: Machine, half: Value) -> Value:
    def wide(pixel: Value) -> Value:
        first = pixel.extract(15, 1).sext(8)
        return m.concat(first, *(pixel.extract(low, 5).zext(8) for low in (10, 5, 0)))

    return m.each(16, wide, half)


_pack("vpkpx", 32, _packed_pixels)
register_wise("vupkhpx", lambda m, b: _unpacked_pixels(m, b.extract(64, 64)))
register_wise("vupklpx", lambda m, b: _unpacked_pixels(m, b.trunc(64)))

# Merge and splat


def merged(m: Machine, a: Value, b: Value, width: int) -> Value:
    """The elements of two halves in turn."""
    count = a.width // width
    return m.concat(*(element(source, width, n) for n in range(count) for source in (a, b)))


def _declare_merges(letter: str, width: int) -> None:
    register_wise(f"vmrgh{letter}", lambda m, a, b: merged(m, a.extract(64, 64), b.extract(64, 64), width))
    register_wise(f"vmrgl{letter}", lambda m, a, b: merged(m, a.trunc(64), b.trunc(64), width))


for _letter in ("b", "h", "w"):
    _declare_merges(_letter, WIDTHS[_letter])


def _alternate(m: Machine, a: Value, b: Value, first: int) -> Value:
    return m.concat(*(element(source, 32, n) for n in (first, first + 2) for source in (a, b)))


register_wise("vmrgew", lambda m, a, b: _alternate(m, a, b, 0))
register_wise("vmrgow", lambda m, a, b: _alternate(m, a, b, 1))


def repeated(m: Machine, value: Value) -> Value:
    """Copies of an element all over a register."""
    return m.concat(*[value] * (128 // value.width))


def selected(value: Value, width: int, number: Value) -> Value:
    """Element ``number`` of a register, counted from the left, of which the last bits count."""
    last = 128 // width - 1
    return (value >> ((last - (number & last)) * width).zext(128)).trunc(width)


@meaning("vspltb")
def vspltb(m: Machine, VRT: Value, VRB: Value, UIM4: Value) -> None:
    m.vr[VRT] = repeated(m, selected(m.vr[VRB], 8, UIM4))


@meaning("vsplth")
def vsplth(m: Machine, VRT: Value, VRB: Value, UIM3: Value) -> None:
    m.vr[VRT] = repeated(m, selected(m.vr[VRB], 16, UIM3))


@meaning("vspltw")
def vspltw(m: Machine, VRT: Value, VRB: Value, UIM2: Value) -> None:
    m.vr[VRT] = repeated(m, selected(m.vr[VRB], 32, UIM2))


def _declare_immediate_splat(letter: str, width: int) -> None:
    @meaning(f"vspltis{letter}")
    def splat(m: Machine, VRT: Value, SIM: Value) -> None:
        m.vr[VRT] = repeated(m, SIM.trunc(width))


for _letter in ("b", "h", "w"):
    _declare_immediate_splat(_letter, WIDTHS[_letter])

# Shifts of whole registers


def shifted_left_pair(left: Value, right: Value, octets: Value) -> Value:
    """The first 16 bytes of a register and another behind it, shifted left by 0 to 15 bytes."""
    bits = octets.zext(128) << 3
    return (left << bits) | (right >> (128 - bits))


@meaning("vsldoi")
def vsldoi(m: Machine, VRT: Value, VRA: Value, VRB: Value, SHB: Value) -> None:
    m.vr[VRT] = shifted_left_pair(m.vr[VRA], m.vr[VRB], SHB)


# The book leaves vsl and vsr undefined unless the last three bits of all bytes of VRB are the same.
register_wise("vsl", lambda m, a, b: a << (b & 7))
register_wise("vsr", lambda m, a, b: a >> (b & 7))
register_wise("vslo", lambda m, a, b: a << (b & 0x78))
register_wise("vsro", lambda m, a, b: a >> (b & 0x78))


def _shifted_left_bytes(m: Machine, a: Value, b: Value) -> Value:
    """Each byte is shifted left by its own amount; the bits of the byte behind it come in."""
    pairs = m.each(8, lambda one, behind: m.concat(one, behind), a, a << 8)
    return m.each(16, lambda x, y: (x << y).extract(8, 8), pairs, m.each(8, lambda y: (y & 7).zext(16), b))


def _shifted_right_bytes(m: Machine, a: Value, b: Value) -> Value:
    """Each byte is shifted right by its own amount; the bits of the byte before it come in."""
    pairs = m.each(8, lambda before, one: m.concat(before, one), a >> 8, a)
    return m.each(16, lambda x, y: (x >> y).trunc(8), pairs, m.each(8, lambda y: (y & 7).zext(16), b))


register_wise("vslv", _shifted_left_bytes)
register_wise("vsrv", _shifted_right_bytes)

# Extract and insert: a byte's number may lie too near to the end, which the book leaves undefined


def _from_byte(value: Value, number: Value, width: int) -> Value:
    """The element of ``width`` bits that begins at a byte, counted from the left."""
    return (value >> (((16 - width // 8) - number) << 3).zext(128)).trunc(width)


def _declare_extract(mnemonic: str, width: int) -> None:
    @meaning(mnemonic)
    def extract(m: Machine, VRT: Value, VRB: Value, UIM4: Value) -> None:
        m.vr[VRT] = _from_byte(m.vr[VRB], UIM4, width).zext(64).zext(128) << 64


def inserted(m: Machine, target: Value, value: Value, number: Value) -> Value:
    """``target`` with an element put in from a byte on, counted from the left."""
    shift = (((16 - value.width // 8) - number) << 3).zext(128)
    hole = ~(m.value((1 << value.width) - 1, 128) << shift)
    return (target & hole) | (value.zext(128) << shift)


def _declare_insert(mnemonic: str, width: int) -> None:
    @meaning(mnemonic)
    def insert(m: Machine, VRT: Value, VRB: Value, UIM4: Value) -> None:
        # The last element of the left half, or all of it.
        m.vr[VRT] = inserted(m, m.vr[VRT], m.vr[VRB].extract(64, width), UIM4)


for _mnemonic, _width in (("ub", 8), ("uh", 16), ("uw", 32), ("d", 64)):
    _declare_extract(f"vextract{_mnemonic}", _width)
    _declare_insert(f"vinsert{_mnemonic[-1]}", _width)


def _declare_indexed_extract(letter: str, width: int) -> None:
    @meaning(f"vextu{letter}lx")
    def from_left(m: Machine, RT: Value, RA: Value, VRB: Value) -> None:
        m.gpr[RT] = _from_byte(m.vr[VRB], m.gpr[RA] & 15, width).zext(64)

    @meaning(f"vextu{letter}rx")
    def from_right(m: Machine, RT: Value, RA: Value, VRB: Value) -> None:
        m.gpr[RT] = (m.vr[VRB] >> ((m.gpr[RA] & 15) << 3).zext(128)).trunc(width).zext(64)


for _letter in ("b", "h", "w"):
    _declare_indexed_extract(_letter, WIDTHS[_letter])


@meaning("vpermxor")
def vpermxor(m: Machine, VRT: Value, VRA: Value, VRB: Value, VRC: Value) -> None:
    # The left half of each selector names a byte of VRA, its right half one of VRB.
    selectors = m.vr[VRC]
    left = m.each(8, lambda selector: selector.extract(4, 4).zext(8), selectors)
    right = m.each(8, lambda selector: selector.trunc(4).zext(8), selectors)
    a, b = m.vr[VRA], m.vr[VRB]
    m.vr[VRT] = permuted(m, a, a, left) ^ permuted(m, b, b, right)
