"""Families of vector instructions that compute each element of a register from elements of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.instruction import parameters
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

WIDTHS: Final = {"b": 8, "h": 16, "w": 32, "d": 64, "q": 128}
"""The widths of elements in bits, by the letters that stand for them in mnemonics."""

Elements = Callable[..., Value]
"""A function of the machine and an element of each source: one, two or three."""


def _declare(mnemonic: str, compute: Callable[..., Value], sources: int) -> None:
    """Declare an instruction of one (VRB), two (VRA, VRB) or three source registers."""
    if sources == 1:

        @meaning(mnemonic)
        def one(m: Machine, VRT: Value, VRB: Value) -> None:
            m.vr[VRT] = compute(m, m.vr[VRB])

    elif sources == 2:

        @meaning(mnemonic)
        def two(m: Machine, VRT: Value, VRA: Value, VRB: Value) -> None:
            m.vr[VRT] = compute(m, m.vr[VRA], m.vr[VRB])

    else:

        @meaning(mnemonic)
        def three(m: Machine, VRT: Value, VRA: Value, VRB: Value, VRC: Value) -> None:
            m.vr[VRT] = compute(m, m.vr[VRA], m.vr[VRB], m.vr[VRC])


def _sources(function: Elements) -> int:
    return len(parameters(function)) - 1


def register_wise(mnemonic: str, function: Elements) -> None:
    """Declare an instruction: its target is the function of its whole source registers."""
    _declare(mnemonic, function, _sources(function))


def elementwise(mnemonic: str, width: int, function: Elements) -> None:
    """Declare an instruction: each element of its target is the function of those of its sources."""

    def compute(m: Machine, *sources: Value) -> Value:
        return m.each(width, partial(function, m), *sources)

    _declare(mnemonic, compute, _sources(function))


def saturated(m: Machine, width: int, low: int, high: int, exact: Elements, *sources: Value) -> Value:
    """Each element as the function gives it, but at least ``low`` and at most ``high``.

    ``exact`` gives signed elements that are wide enough for the true result; ``width`` is the sources'. The
    result's elements are as wide as ``high`` needs. VSCR[SAT] is set if any element was changed.
    """
    narrow = (high - low).bit_length()

    def clamped(*elements: Value) -> Value:
        value = exact(m, *elements)
        not_low = m.select(value.slt(low), low, value)
        return m.select(value.sgt(high), high, not_low).trunc(narrow)

    def outside(*elements: Value) -> Value:
        value = exact(m, *elements)
        return value.slt(low) | value.sgt(high)

    m["VSCR"] = m["VSCR"] | m.each(width, outside, *sources).ne(0).zext(32)
    return m.each(width, clamped, *sources)


def limits(width: int, is_signed: bool) -> tuple[int, int]:
    """The least and the greatest number of so many bits."""
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if is_signed else (0, (1 << width) - 1)


def saturating(mnemonic: str, width: int, low: int, high: int, exact: Elements) -> None:
    """Declare an instruction whose elements are `saturated`."""

    def compute(m: Machine, *sources: Value) -> Value:
        return saturated(m, width, low, high, exact, *sources)

    _declare(mnemonic, compute, _sources(exact))


def widened(value: Value, width: int, is_signed: bool) -> Value:
    """A number in more bits."""
    return value.sext(width) if is_signed else value.zext(width)
