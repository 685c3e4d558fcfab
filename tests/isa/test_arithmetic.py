"""Sums, products and quotients by what the book says of them as numbers."""

# ruff: noqa: SIM300 - a register's name looks like a constant's

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chronovisor.isa.bits import XER

from .numbers import bits, modes, numbers
from .single import ALL, HERE, execute, flags, relation, signed

Terms = Callable[[int, int, int], tuple[int, int, int]]

#: Instruction -> its two terms and the carry added, from RA, RB (or the immediate 0x1234) and CA.
SUMS: dict[str, Terms] = {
    "add": lambda a, b, ca: (a, b, 0),
    "subf": lambda a, b, ca: (~a, b, 1),
    "neg": lambda a, b, ca: (~a, 0, 1),
    "addc": lambda a, b, ca: (a, b, 0),
    "subfc": lambda a, b, ca: (~a, b, 1),
    "adde": lambda a, b, ca: (a, b, ca),
    "subfe": lambda a, b, ca: (~a, b, ca),
    "addme": lambda a, b, ca: (a, -1, ca),
    "subfme": lambda a, b, ca: (~a, -1, ca),
    "addze": lambda a, b, ca: (a, 0, ca),
    "subfze": lambda a, b, ca: (~a, 0, ca),
}
ONE_OPERAND = {"neg", "addme", "subfme", "addze", "subfze"}
NO_CARRY = {"add", "subf", "neg"}


def carry(terms: tuple[int, int, int], width: int) -> bool:
    low = (1 << width) - 1
    return (terms[0] & low) + (terms[1] & low) + terms[2] > low


def overflow(terms: tuple[int, int, int], width: int) -> bool:
    total = signed(terms[0], width) + signed(terms[1], width) + terms[2]
    return total != signed(total, width)


@pytest.mark.parametrize("name", SUMS)
@given(a=numbers, b=numbers, xer=st.integers(0, 31), sixty_four=modes)
def test_sums(name: str, a: int, b: int, xer: int, sixty_four: bool) -> None:
    before = {flag.name for n, flag in enumerate(XER) if flag is not XER.COUNT and xer >> n & 1}
    value = sum(int(XER[flag]) for flag in before if flag)
    operands = "r3,r4" if name in ONE_OPERAND else "r3,r4,r5"
    state = execute(f"{name}o. {operands}", {4: a, 5: b}, sixty_four, XER=value)
    terms = SUMS[name](a, b, int("CA" in before))
    width = 64 if sixty_four else 32
    assert state.gpr[3] == sum(terms) & ALL
    expected = before & {"SO"} if name not in NO_CARRY else before & {"SO", "CA", "CA32"}
    if name not in NO_CARRY:
        expected |= {"CA"} if carry(terms, width) else set()
        expected |= {"CA32"} if carry(terms, 32) else set()
    expected |= {"OV", "SO"} if overflow(terms, width) else set()
    expected |= {"OV32"} if overflow(terms, 32) else set()
    assert flags(state) == expected
    assert state.CR >> 28 == relation(signed(state.gpr[3], width), 0, int("SO" in expected))


@given(a=numbers, si=st.integers(-0x8000, 0x7FFF), sixty_four=modes)
def test_sums_with_an_immediate(a: int, si: int, sixty_four: bool) -> None:
    width = 64 if sixty_four else 32
    for text, terms in (
        (f"addic. r3,r4,{si}", (a, si, 0)),
        (f"addic r3,r4,{si}", (a, si, 0)),
        (f"subfic r3,r4,{si}", (~a, si, 1)),
    ):
        state = execute(text, {4: a}, sixty_four)
        assert state.gpr[3] == sum(terms) & ALL
        expected = {flag for flag, of in (("CA", width), ("CA32", 32)) if carry(terms, of)}
        assert flags(state) == expected
        recorded = relation(signed(state.gpr[3], width), 0) if "." in text else 0
        assert state.CR >> 28 == recorded
    for text, result in (
        (f"addi r3,r4,{si}", a + si),
        (f"addis r3,r4,{si}", a + (si << 16)),
        (f"addi r3,0,{si}", si),
        (f"addpcis r3,{si}", HERE + 4 + (si << 16)),
    ):
        state = execute(text, {0: 7, 4: a}, sixty_four, XER=int(XER.CA))
        assert state.gpr[3] == result & ALL
        assert flags(state) == {"CA"}


@given(a=numbers, b=numbers, ov=bits, sixty_four=modes)
def test_addex(a: int, b: int, ov: int, sixty_four: bool) -> None:
    state = execute("addex r3,r4,r5,0", {4: a, 5: b}, sixty_four, XER=ov * int(XER.OV))
    assert state.gpr[3] == (a + b + ov) & ALL
    width = 64 if sixty_four else 32
    assert flags(state) == {f for f, of in (("OV", width), ("OV32", 32)) if carry((a, b, ov), of)}


@given(a=numbers, b=numbers, c=numbers)
def test_products(a: int, b: int, c: int) -> None:
    sa, sb, sc = signed(a), signed(b), signed(c)
    wa, wb = signed(a, 32), signed(b, 32)
    for text, result in (
        ("mulld r3,r4,r5", a * b),
        ("mulhd r3,r4,r5", sa * sb >> 64),
        ("mulhdu r3,r4,r5", a * b >> 64),
        ("mullw r3,r4,r5", wa * wb),
        ("mulli r3,r4,-77", a * -77),
        ("maddld r3,r4,r5,r6", a * b + c),
        ("maddhd r3,r4,r5,r6", (sa * sb + sc) >> 64),
        ("maddhdu r3,r4,r5,r6", (a * b + c) >> 64),
    ):
        assert execute(text, {4: a, 5: b, 6: c}).gpr[3] == result & ALL, text
    for text, result in (("mulhw", wa * wb >> 32), ("mulhwu", (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF) >> 32)):
        assert execute(f"{text} r3,r4,r5", {4: a, 5: b}).gpr[3] & 0xFFFFFFFF == result & 0xFFFFFFFF, text
    for text, product, width in (("mulldo", sa * sb, 64), ("mullwo", wa * wb, 32)):
        expected = {"SO", "OV", "OV32"} if product != signed(product, width) else set()
        assert flags(execute(f"{text} r3,r4,r5", {4: a, 5: b})) == expected, text


def quotient(a: int, b: int) -> int:
    """Truncated towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@example(a=1 << 63, b=ALL, sixty_four=True)
@example(a=1 << 31, b=0xFFFFFFFF, sixty_four=True)
@example(a=1 << 62, b=ALL - 1, sixty_four=False)
@given(a=numbers, b=numbers, sixty_four=modes)
def test_quotients(a: int, b: int, sixty_four: bool) -> None:
    for size, width in (("w", 32), ("d", 64)):
        low = (1 << width) - 1
        for kind, extended, unsigned in (
            ("", False, False),
            ("u", False, True),
            ("e", True, False),
            ("eu", True, True),
        ):
            x, y = (a & low, b & low) if unsigned else (signed(a, width), signed(b, width))
            result = quotient(x << (width if extended else 0), y) if y else None
            fits = result is not None and result == (result & low if unsigned else signed(result, width))
            state = execute(f"div{size}{kind}o r3,r4,r5", {4: a, 5: b}, sixty_four)
            assert flags(state) == (set() if fits else {"SO", "OV", "OV32"}), (size, kind)
            if fits and result is not None:
                assert state.gpr[3] & low == result & low, (size, kind)
        for kind, x, y in (("s", signed(a, width), signed(b, width)), ("u", a & low, b & low)):
            if y:
                state = execute(f"mod{kind}{size} r3,r4,r5", {4: a, 5: b}, sixty_four)
                assert state.gpr[3] & low == (x - quotient(x, y) * y) & low, (size, kind)
