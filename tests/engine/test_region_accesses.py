"""Which accesses of a region share one look into the TLB."""

from __future__ import annotations

import pytest

from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.regions.accesses import MOST_SPAN, Line
from chronovisor.engine.regions.code import Code
from chronovisor.isa.assembly import assemble


def spans(text: str) -> list[tuple[int, int, int]]:
    """For each access in order: the number of its span, and the span's ends from the access's own address."""
    content = assemble(text, 0, True)
    code = Code({0: content + bytes((1 << PAGE_SHIFT) - len(content))}, (True, True))
    numbers: dict[int, int] = {}
    return [
        (
            numbers.setdefault(id(one.span), len(numbers)),
            one.span.low - one.distance,
            one.span.high - one.distance,
        )
        for one in Line(code[offset] for offset in range(0, len(content), 4)).accesses.values()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ld r3,8(r4); lwz r5,0(r4)", [(0, -8, 8), (0, 0, 16)]),
        ("ld r3,8(r4); std r3,0(r4)", [(0, -8, 8), (0, 0, 16)]),
        ("ld r3,8(r4); bc 12,2,8; std r3,0(r4)", [(0, 0, 8), (1, 0, 8)]),
        ("std r3,8(r4); bc 12,2,8; ld r3,0(r4)", [(0, -8, 8), (0, 0, 16)]),
        ("ld r3,8(r4); ld r5,0(r6)", [(0, 0, 8), (1, 0, 8)]),
        ("stdu r1,-32(r1); std r3,48(r1)", [(0, 0, 56), (0, -48, 8)]),
        ("ldu r3,8(r9); ldu r4,8(r9); ld r5,8(r9)", [(0, 0, 24), (0, -8, 16), (0, -16, 8)]),
        ("ld r3,0(r4); addi r5,r4,16; lbz r6,-1(r5)", [(0, 0, 16), (0, -15, 1)]),
        ("ld r3,0(r4); or r4,r4,r3; ld r5,0(r4)", [(0, 0, 8), (1, 0, 8)]),
        ("ldx r3,r4,r5; addi r6,r5,8; ldx r7,r6,r4", [(0, 0, 16), (0, -8, 8)]),
        ("ldx r3,r4,r5; ldx r7,r6,r4", [(0, 0, 8), (1, 0, 8)]),
        ("lwz r3,16(0); lwz r4,20(0)", [(0, 0, 8), (0, -4, 4)]),
        (f"ld r3,0(r4); ld r5,{MOST_SPAN}(r4)", [(0, 0, 8), (1, 0, 8)]),
        ("ld r4,0(r4); ld r4,0(r4)", [(0, 0, 8), (1, 0, 8)]),
        ("li r4,64; ld r3,0(r4); ld r5,72(0)", [(0, 0, 16), (0, -8, 8)]),
        ("li r4,64; li r0,8; ld r3,0(r4); ld r5,72(0)", [(0, 0, 16), (0, -8, 8)]),
    ],
)
def test_accesses_share_a_look_if_their_distance_is_known(
    text: str, expected: list[tuple[int, int, int]]
) -> None:
    assert spans(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ld r3,8(r4); ld r5,8(r6); std r3,0(r4)", ["both", "load", "both"]),
        ("std r3,8(r4); std r5,8(r6); ld r3,0(r4)", ["both", "store", "both"]),
        ("ld r3,8(r4); bc 12,2,8; std r3,0(r4); ld r5,0(r4)", ["load", "both", "both"]),
        (f"std r3,0(r4); ld r3,{MOST_SPAN}(r4); ld r5,0(r4)", ["both", "load", "both"]),
    ],
)
def test_what_a_page_is_looked_up_for(text: str, expected: list[str]) -> None:
    """For both if loads share a look with a store that is executed if they are."""
    content = assemble(text, 0, True)
    code = Code({0: content + bytes((1 << PAGE_SHIFT) - len(content))}, (True, True))
    found = Line(code[offset] for offset in range(0, len(content), 4))
    assert [one.span.use for one in found.accesses.values()] == expected
