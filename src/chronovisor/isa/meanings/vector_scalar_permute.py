"""Vector-scalar instructions that move elements about (Power ISA 3.0B Book I 7.6.3)."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.vector_permute import (
    inserted,
    merged,
    permuted,
    repeated,
    reversely_permuted,
    selected,
    shifted_left_pair,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value


@meaning("xxpermdi")
def xxpermdi(m: Machine, XT: Value, XA: Value, XB: Value, DM: Value) -> None:
    a, b = m.vsr[XA], m.vsr[XB]
    left = m.select(DM.extract(1, 1), a.trunc(64), a.extract(64, 64))
    right = m.select(DM.extract(0, 1), b.trunc(64), b.extract(64, 64))
    m.vsr[XT] = m.concat(left, right)


@meaning("xxsldwi")
def xxsldwi(m: Machine, XT: Value, XA: Value, XB: Value, SHW: Value) -> None:
    m.vsr[XT] = shifted_left_pair(m.vsr[XA], m.vsr[XB], SHW << 2)


@meaning("xxsel")
def xxsel(m: Machine, XT: Value, XA: Value, XB: Value, XC: Value) -> None:
    mask = m.vsr[XC]
    m.vsr[XT] = (m.vsr[XA] & ~mask) | (m.vsr[XB] & mask)


@meaning("xxmrghw")
def xxmrghw(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
    m.vsr[XT] = merged(m, m.vsr[XA].extract(64, 64), m.vsr[XB].extract(64, 64), 32)


@meaning("xxmrglw")
def xxmrglw(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
    m.vsr[XT] = merged(m, m.vsr[XA].trunc(64), m.vsr[XB].trunc(64), 32)


@meaning("xxperm")
def xxperm(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
    m.vsr[XT] = permuted(m, m.vsr[XA], m.vsr[XT], m.vsr[XB])


@meaning("xxpermr")
def xxpermr(m: Machine, XT: Value, XA: Value, XB: Value) -> None:
    m.vsr[XT] = reversely_permuted(m, m.vsr[XA], m.vsr[XT], m.vsr[XB])


@meaning("xxspltw")
def xxspltw(m: Machine, XT: Value, XB: Value, UIM2: Value) -> None:
    m.vsr[XT] = repeated(m, selected(m.vsr[XB], 32, UIM2))


@meaning("xxspltib")
def xxspltib(m: Machine, XT: Value, IMM8: Value) -> None:
    m.vsr[XT] = repeated(m, IMM8.trunc(8))


@meaning("xxextractuw")
def xxextractuw(m: Machine, XT: Value, XB: Value, UIM4: Value) -> None:
    # The book leaves the result undefined if the word's first byte is behind byte 12.
    word = (m.vsr[XB] >> ((12 - UIM4) << 3).zext(128)).trunc(32)
    m.vsr[XT] = word.zext(64).zext(128) << 64


@meaning("xxinsertw")
def xxinsertw(m: Machine, XT: Value, XB: Value, UIM4: Value) -> None:
    m.vsr[XT] = inserted(m, m.vsr[XT], m.vsr[XB].extract(64, 32), UIM4)


def _declare_reverse(letter: str, width: int) -> None:
    @meaning(f"xxbr{letter}")
    def reverse(m: Machine, XT: Value, XB: Value) -> None:
        m.vsr[XT] = m.each(width, lambda element: element.byteswap(), m.vsr[XB])


_declare_reverse("h", 16)
_declare_reverse("w", 32)
_declare_reverse("d", 64)
_declare_reverse("q", 128)

# Moves between general purpose and vector-scalar registers


def _declare_move_from(mnemonic: str, part: Callable[[Value], Value]) -> None:
    @meaning(mnemonic)
    def move(m: Machine, RA: Value, XS: Value) -> None:
        m.gpr[RA] = part(m.vsr[XS]).zext(64)


_declare_move_from("mfvsrd", lambda source: source.extract(64, 64))
_declare_move_from("mfvsrwz", lambda source: source.extract(64, 32))
_declare_move_from("mfvsrld", lambda source: source.trunc(64))


def _declare_move_to(mnemonic: str, extended: Callable[[Value], Value]) -> None:
    @meaning(mnemonic)
    def move(m: Machine, XT: Value, RA: Value) -> None:
        # The book leaves the right half undefined. As on hardware it becomes zeros.
        m.vsr[XT] = extended(m.gpr[RA]).zext(128) << 64


_declare_move_to("mtvsrd", lambda source: source)
_declare_move_to("mtvsrwa", lambda source: source.trunc(32).sext(64))
_declare_move_to("mtvsrwz", lambda source: source.trunc(32).zext(64))


@meaning("mtvsrdd")
def mtvsrdd(m: Machine, XT: Value, RA: Value, RB: Value) -> None:
    m.vsr[XT] = m.concat(m.base(RA), m.gpr[RB])


@meaning("mtvsrws")
def mtvsrws(m: Machine, XT: Value, RA: Value) -> None:
    m.vsr[XT] = repeated(m, m.gpr[RA].trunc(32))
