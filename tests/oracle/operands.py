"""Operands that find mistakes: carry boundaries, runs of ones and zeros, related pairs, and plain random."""

from __future__ import annotations

from random import Random

ALL = (1 << 64) - 1

BOUNDARIES: tuple[int, ...] = tuple(
    dict.fromkeys(
        (sign * (1 << shift) + step) & ALL
        for shift in (0, 1, 7, 8, 15, 16, 31, 32, 33, 62, 63, 64)
        for sign in (1, -1)
        for step in (-2, -1, 0, 1)
    )
)
"""Values within two of ± a power of two at which some instruction's width ends."""

MEMORY_PATTERNS: tuple[bytes, ...] = (
    bytes(range(256)),
    bytes(255 - n for n in range(256)),
    b"\xff\xff\xff\xff\x7f\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00" * 16,
    *(Random(seed).randbytes(256) for seed in range(5)),
)
"""What the memory block of a case begins with."""


def value(random: Random) -> int:
    """One 64-bit operand."""
    kind = random.getrandbits(3)
    if kind < 3:
        return BOUNDARIES[random.getrandbits(16) % len(BOUNDARIES)]
    if kind < 5:
        bits = random.getrandbits(14)
        run = (((1 << ((bits & 63) + 1)) - 1) << ((bits >> 6) & 63)) & ALL
        if (bits >> 12) & 1:
            run ^= ALL
        return (run + (bits >> 13)) & ALL
    if kind == 5:
        word = random.getrandbits(32)
        return word if word & 1 else (word | ~0xFFFF_FFFF) & ALL
    if kind == 6:
        return random.getrandbits(8)
    return random.getrandbits(64)


def related(random: Random, other: int) -> int:
    """An operand near another one: equal, its complement, its negative, a step away, half of it the same."""
    kind = random.getrandbits(3)
    return (
        other,
        other ^ ALL,
        -other & ALL,
        (1 - other) & ALL,
        (other + 1) & ALL,
        (other - 1) & ALL,
        other ^ 0xFFFF_FFFF_0000_0000,
        other ^ (1 << random.getrandbits(6)),
    )[kind]


def values(random: Random, count: int) -> list[int]:
    """`count` operands, now and then related to the one before."""
    out: list[int] = []
    for _ in range(count):
        out.append(related(random, out[-1]) if out and random.getrandbits(2) == 0 else value(random))
    return out


def xer(random: Random) -> int:
    """An XER: the five flags at random, a byte count now and then."""
    bits = random.getrandbits(8)
    return ((bits & 7) << 29) | (((bits >> 3) & 3) << 18) | (random.getrandbits(7) if bits >> 5 == 0 else 0)
