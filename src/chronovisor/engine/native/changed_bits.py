"""What meanings do to some bits of a register that they read and set as a whole: CR or XER."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from chronovisor.isa.values import Value, mask

NAMES: Final = ("CR", "XER")


def is_read(v: Value) -> bool:
    """Whether a value is one of the registers as a whole."""
    return v.op == "get" and v.detail in NAMES


def replaced(constant: Callable[[Value], int | None], v: Value) -> tuple[str, int, Value] | None:
    """The register that a value is, but for some bits; these bits as a mask; what has their new values.

    None if the value is no such register with some known bits replaced. ``constant`` knows values.
    """
    if v.op != "or" or v.args[0].op != "and" or not is_read(v.args[0].args[0]):
        return None
    read, kept = v.args[0].args[0], constant(v.args[0].args[1])
    return None if kept is None else (str(read.detail), ~kept & mask(read.width), v.args[1])


def bits(ones: int) -> Iterator[int]:
    """The numbers of the bits of a mask that are ones; 0 is the least significant."""
    while ones:
        lowest = ones & -ones
        yield lowest.bit_length() - 1
        ones ^= lowest
