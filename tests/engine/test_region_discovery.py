"""Which instructions form a region, and where it can be entered."""

from __future__ import annotations

from chronovisor.engine.regions.code import Code
from chronovisor.engine.regions.discovery import Region, discover, discover_from
from chronovisor.engine.regions.tight_loops import MOST_IN_NEST
from chronovisor.isa.assembly import assemble

#: A loop that calls a function, which two ways through it share.
_TEXT = (
    "l1: bc 12,2,l2; addi r4,r4,1; l2: "
    + "addi r5,r5,1; " * 8
    + "bl l3; bc 16,0,l1; sc 1; l3: nop; bclr 20,0,0"
)


def _code(text: str) -> Code:
    return Code({0: assemble(text, 0, False).ljust(0x1000, b"\0")}, (True, False))


def _checked(region: Region | None) -> Region:
    """A region of which is sure: each instruction is in some part, and each cycle has a cut."""
    assert region is not None
    parts = {entry: region.part(entry) for entry in region.entries}
    assert {offset for part in parts.values() for offset in part} == set(region.sites)
    for entry, part in parts.items():
        assert not region.cuts & part.keys() - {entry} - region.loop(entry)
        assert region.longest[entry] <= len(part)
    return region


def test_each_instruction_is_in_a_part_that_ends_at_cuts() -> None:
    region = _checked(discover(_code(_TEXT), 0))
    assert region.entries[0] == 0
    # What the parts of several entries would have in common is a part of its own.
    assert sum(len(region.part(entry)) for entry in region.entries) < 2 * len(region.sites)


def test_a_tight_loop_is_in_the_part_of_its_head_as_a_whole() -> None:
    region = _checked(
        discover_from(_code("addi r3,r3,1; l1: addi r4,r4,1; nop; bc 16,0,l1; nop; sc 1"), [0, 8])
    )
    assert region.loops == {4: frozenset({4, 8, 12})}
    assert list(region.part(4)) == [4, 8, 12, 16]
    # Control that comes to the middle of the loop goes on in the part of its head.
    assert list(region.part(8)) == [8, 12, 16]
    assert 8 not in region.cuts


def _nest(nops: int) -> Region:
    """A loop in a loop: the inner one is entered too."""
    inner = "l1: li r3,4; l2: addi r3,r3,1; bc 16,0,l2; "
    return _checked(discover_from(_code(inner + "nop; " * nops + "bc 12,2,l1; nop; sc 1"), [0]))


def test_a_small_loop_around_others_is_tight_too() -> None:
    region = _nest(2)
    assert region.loops == {0: frozenset(range(0, 24, 4)), 4: frozenset({4, 8})}
    assert region.cuts >= {0, 4}
    assert list(region.part(0)) == list(range(0, 28, 4))
    # From the inner loop's end on control goes to the outer one's head, which begins a part.
    assert list(region.part(4)) == list(range(4, 28, 4))
    assert region.longest[0] == 1


def test_a_large_loop_around_others_is_not_tight() -> None:
    region = _nest(MOST_IN_NEST)
    assert region.loops == {4: frozenset({4, 8})}
    assert list(region.part(0)) == [0]


def test_a_region_ends_where_others_begin() -> None:
    code = _code("l1: addi r3,r3,1; addi r4,r4,1; xor r5,r5,r4; bc 16,0,l1; nop; sc 1")
    assert list(_checked(discover_from(code, [4])).sites) == [0, 4, 8, 12, 16]
    assert list(_checked(discover_from(code, [4], {0, 12})).sites) == [4, 8]
