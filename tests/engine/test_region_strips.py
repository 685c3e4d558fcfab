"""Straight tight loops: which of their accesses can be checked for several rounds at once."""

from __future__ import annotations

import pytest

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.regions.code import Code
from chronovisor.engine.regions.discovery import Edges
from chronovisor.engine.regions.strips import MOST_STEP, straight_loops
from chronovisor.isa.assembly import assemble

from .region_programs import DATA
from .test_regions import ALL, CODE, MODES, Case, Run, put_in


def _steps(text: str) -> dict[int, list[tuple[int, int, int]]]:
    """For each straight loop from its first instruction: its spans' sizes, and by how much they go on."""
    words = assemble(text, 0, True)
    code = Code({0: words.ljust(0x1000, b"\0")}, (True, True))
    sites = {offset: code[offset] for offset in range(0, len(words), 4)}
    edges: Edges = {
        offset: [o for o in (*site.targets, *([offset + 4] if site.falls else [])) if o in sites]
        for offset, site in sites.items()
    }
    heads = {target for offset, site in sites.items() for target in site.targets if target <= offset}
    return {
        head: [(span.low, span.size, step) for span, step in loop.steps]
        for head, loop in straight_loops(sites, edges, heads).items()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ldu r3,8(r4); stdu r3,16(r5)", [(8, 8, 8), (16, 8, 16)]),
        ("ld r3,8(r4); ld r6,-8(r4); addi r4,r4,-16", [(-8, 24, -16)]),
        ("lwz r3,0(r4)", [(0, 4, 0)]),
        ("lbzx r3,r4,r5; addi r4,r4,1; addi r5,r5,2", [(0, 1, 3)]),
        ("rldicr r7,r6,3,60; ldx r3,r7,r4; addi r6,r6,1", [(0, 8, 8)]),
        ("rldic r7,r6,2,30; lwzx r3,r7,r4; addi r6,r6,-3", [(0, 4, -12)]),
        ("rldicl r7,r6,0,32; stbx r3,r7,r4; addi r6,r6,1", [(0, 1, 1)]),
        ("rlwinm r7,r6,3,0,28; ldx r3,r7,r4; addi r6,r6,1; lwz r5,0(r8)", [(0, 4, 0)]),
        ("ld r4,0(r4); lwz r5,8(r6); addi r6,r6,4", [(8, 4, 4)]),
        ("lwz r5,8(r6); add r6,r6,r7; ld r9,0(r8)", [(0, 8, 0)]),
        (f"lwz r5,0(r6); addi r6,r6,{MOST_STEP}", [(0, 4, MOST_STEP)]),
        (f"lwz r5,0(r6); addi r6,r6,{MOST_STEP + 1}; lwz r5,0(r7)", [(0, 4, 0)]),
        ("andi. r5,r3,1; bc 12,2,end; lwz r5,0(r6); addi r6,r6,4", [(0, 4, 4)]),
    ],
)
def test_accesses_that_go_on_by_the_same_distance(text: str, expected: list[tuple[int, int, int]]) -> None:
    assert _steps(f"loop: {text}; bc 16,0,loop; end: nop") == {0: expected}


@pytest.mark.parametrize(
    "text",
    [
        "addi r3,r3,1",
        "ld r4,0(r4)",
        "lwz r5,0(r6); bc 12,2,over; addi r6,r6,4; over: addi r7,r7,1",
        "lwz r5,0(r6); b end",
    ],
)
def test_loops_without_strips(text: str) -> None:
    assert not _steps(f"loop: {text}; bc 16,0,loop; end: nop").get(0)


def test_a_loop_of_which_control_comes_into_the_middle_is_not_straight() -> None:
    assert not _steps("b middle; loop: lwz r5,0(r6); middle: addi r6,r6,4; bc 16,0,loop; end: nop")


def test_an_index_of_32_bits_that_wraps() -> None:
    """The index goes from the end of 4 GiB back to their beginning, which is another page of real memory."""
    text = "loop: rldicl r7,r6,0,32; lwzx r3,r7,r20; add r4,r4,r3; addi r6,r6,4; bc 16,0,loop; sc 1"
    values = {"CTR": 40, "r6": 0xFFFFFFC0, "r20": DATA}
    case = Case(text, CODE, MODES["64le translated"], values, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.tables.map(DATA + 0xFFFFF000, DATA + 0x1000, 12, ALL)
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen()


def test_a_page_is_not_logged_before_it_is_stored_to() -> None:
    """The loop is left before its store, whose page the TLB does not have."""
    text = "loop: lwz r5,0(r6); addi r6,r6,4; cmp 0,0,r5,r5; bc 12,2,end; stw r5,0(r7); addi r7,r7,4; "
    text += "bc 16,0,loop; end: sc 1"
    case = Case(text, CODE, MODES["64le translated"], {"CTR": 9, "r6": DATA, "r7": DATA + 0x1000}, 0, "nop")
    runs = [Run(engine, case) for engine in (ConcreteEngine, NativeEngine)]
    assert put_in(runs[1], [0]) == 1
    for run in runs:
        run.guest.until_called(run.thread)
    assert runs[0].seen() == runs[1].seen()
    dirty = [run.guest.memory.dirty.take() for run in runs]
    assert dirty[0] == dirty[1]
