"""Vector instructions for ciphers, hashes and polynomials over bits (Power ISA 3.0B Book I 6.11).

The bytes of a register are elements of AES's field: polynomials over bits modulo x^8 + x^4 + x^3 + x + 1. All
16 are computed at once, each in its place.
"""

from __future__ import annotations

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.elementwise import WIDTHS, elementwise, register_wise
from chronovisor.isa.meanings.vector_permute import element
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_LAST_BITS = int.from_bytes(b"\x01" * 16, "big")
_POLYNOMIAL = 0x1B


def _exclusive_or(values: list[Value]) -> Value:
    """All of them, in a tree of little depth."""
    while len(values) > 1:
        values = [a ^ b for a, b in zip(values[::2], values[1::2], strict=False)] + values[len(values) & ~1 :]
    return values[0]


def _bit_of_bytes(value: Value, number: int) -> Value:
    """In each byte 1 if bit ``number`` of the byte is set (0 is the least significant), else 0."""
    return (value >> number) & _LAST_BITS


def _times_x(value: Value) -> Value:
    return ((value & (0x7F * _LAST_BITS)) << 1) ^ _bit_of_bytes(value, 7) * _POLYNOMIAL


def _product(a: Value, b: Value) -> Value:
    terms = []
    for number in range(8):
        terms.append(a & (_bit_of_bytes(b, number) * 0xFF))
        a = _times_x(a)
    return _exclusive_or(terms)


def _linear(value: Value, images: list[int]) -> Value:
    """The linear function of each byte that takes bit n to ``images[n]``."""
    return _exclusive_or([_bit_of_bytes(value, number) * image for number, image in enumerate(images)])


def _power_of_x(exponent: int) -> int:
    value = 1
    for _ in range(exponent):
        value = value << 1 ^ (0x100 | _POLYNOMIAL) * (value >> 7)
    return value


_SQUARES = [_power_of_x(2 * number) for number in range(8)]


def _inverse(value: Value) -> Value:
    """The power 254: the inverse of each byte in the field, 0 for 0."""

    def squared(value: Value, times: int) -> Value:
        for _ in range(times):
            value = _linear(value, _SQUARES)
        return value

    second = squared(value, 1)
    third = _product(second, value)
    twelfth = squared(third, 2)
    fifteenth = _product(twelfth, third)
    return _product(_product(squared(fifteenth, 4), twelfth), second)


_AFFINE = [0x1F, 0x3E, 0x7C, 0xF8, 0xF1, 0xE3, 0xC7, 0x8F]
_AFFINE_BACK = [0x4A, 0x94, 0x29, 0x52, 0xA4, 0x49, 0x92, 0x25]
_AFFINE_CONSTANT = 0x63 * _LAST_BITS


def _substituted(state: Value) -> Value:
    """SubBytes of FIPS 197 5.1.1."""
    return _linear(_inverse(state), _AFFINE) ^ _AFFINE_CONSTANT


def _substituted_back(state: Value) -> Value:
    return _inverse(_linear(state ^ _AFFINE_CONSTANT, _AFFINE_BACK))


def _shifted_rows(m: Machine, state: Value, direction: int) -> Value:
    """ShiftRows of FIPS 197 5.1.2: byte ``row + 4 * column`` comes from a column further on."""
    sources = [row + 4 * ((column + direction * row) % 4) for column in range(4) for row in range(4)]
    return m.concat(*(element(state, 8, source) for source in sources))


def _mixed_columns(m: Machine, state: Value, factors: tuple[int, int, int, int]) -> Value:
    """MixColumns of FIPS 197 5.1.3: each byte is a sum of multiples of its column's bytes."""
    terms = []
    for number, factor in enumerate(factors):
        turned = m.each(32, lambda column, by=8 * number: m.rotl(column, by), state)
        multiple = turned
        for bit in range(4):
            if factor >> bit & 1:
                terms.append(multiple)
            multiple = _times_x(multiple)
    return _exclusive_or(terms)


_MIX, _MIX_BACK = (2, 3, 1, 1), (14, 11, 13, 9)


def _cipher_last(m: Machine, state: Value, key: Value) -> Value:
    return _shifted_rows(m, _substituted(state), 1) ^ key


def _cipher(m: Machine, state: Value, key: Value) -> Value:
    return _mixed_columns(m, _shifted_rows(m, _substituted(state), 1), _MIX) ^ key


def _decipher_last(m: Machine, state: Value, key: Value) -> Value:
    return _substituted_back(_shifted_rows(m, state, -1)) ^ key


def _decipher(m: Machine, state: Value, key: Value) -> Value:
    return _mixed_columns(m, _decipher_last(m, state, key), _MIX_BACK)


register_wise("vcipher", _cipher)
register_wise("vcipherlast", _cipher_last)
register_wise("vncipher", _decipher)
register_wise("vncipherlast", _decipher_last)


@meaning("vsbox")
def vsbox(m: Machine, VRT: Value, VRA: Value) -> None:
    m.vr[VRT] = _substituted(m.vr[VRA])


# Products of polynomials


def _declare_polynomial_sum(letter: str, width: int) -> None:
    """Declare an instruction: each pair of elements becomes the sum of its products, without carries."""

    def products(m: Machine, a: Value, b: Value) -> Value:
        terms = []
        for low in (0, width):
            x, y = a.extract(low, width), b.extract(low, width).zext(2 * width)
            terms += [x.extract(bit, 1).sext(2 * width) & (y << bit) for bit in range(width)]
        return _exclusive_or(terms)

    elementwise(f"vpmsum{letter}", 2 * width, products)


for _letter in ("b", "h", "w", "d"):
    _declare_polynomial_sum(_letter, WIDTHS[_letter])

# The functions of FIPS 180-4 4.1.2 and 4.1.3

Distances = tuple[int, int, int]
"""The distances of two rotations, and of a third or a shift."""


Pair = tuple[Distances, Distances]


def _declare_sigma(letter: str, small: Pair, large: Pair) -> None:
    width = WIDTHS[letter]
    count = 128 // width

    def rotated(m: Machine, value: Value, distance: int) -> Value:
        return m.rotl(value, width - distance)

    def small_sigma(m: Machine, value: Value, at: Distances) -> Value:
        return rotated(m, value, at[0]) ^ rotated(m, value, at[1]) ^ (value >> at[2])

    def large_sigma(m: Machine, value: Value, at: Distances) -> Value:
        return rotated(m, value, at[0]) ^ rotated(m, value, at[1]) ^ rotated(m, value, at[2])

    @meaning(f"vshasigma{letter}")
    def sigma(m: Machine, VRT: Value, VRA: Value, ST: Value, SIX: Value) -> None:
        results = []
        for number in range(count):
            value = element(m.vr[VRA], width, number)
            # The bits of SIX belong to words, so each second one to a doubleword.
            is_second = SIX.bit(number * 4 // count, of=4)
            chosen = [
                m.select(is_second, of(m, value, second), of(m, value, first))
                for of, (first, second) in ((small_sigma, small), (large_sigma, large))
            ]
            results.append(m.select(ST.trunc(1), chosen[1], chosen[0]))
        m.vr[VRT] = m.concat(*results)


_declare_sigma("w", ((7, 18, 3), (17, 19, 10)), ((2, 13, 22), (6, 11, 25)))
_declare_sigma("d", ((1, 8, 7), (19, 61, 6)), ((28, 34, 39), (14, 18, 41)))
