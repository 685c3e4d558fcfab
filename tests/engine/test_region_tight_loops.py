"""Innermost loops that are tight: closed, without calls and jumps by register."""

from __future__ import annotations

from chronovisor.engine.regions.code import Code
from chronovisor.engine.regions.tight_loops import innermost, loops_of
from chronovisor.isa.assembly import assemble


def _loops(text: str) -> list[list[int]]:
    words = assemble(text, 0, False)
    code = Code({0: words.ljust(0x1000, b"\0")}, (True, False))
    found = innermost(loops_of({offset: code[offset] for offset in range(0, len(words), 4)}))
    assert all(head == min(loop) for head, loop in found.items())
    return sorted(map(sorted, found.values()))


def test_only_the_innermost_loop_is_tight() -> None:
    assert _loops("l1: li r3,4; l2: addi r3,r3,1; bc 16,0,l2; mtctr r3; bc 12,2,l1") == [[4, 8]]


def test_both_sides_of_a_branch_are_in_a_loop() -> None:
    assert _loops("l1: bc 12,2,l2; addi r3,r3,1; l2: addi r4,r4,1; bc 16,0,l1; addi r5,r5,1") == [
        [0, 4, 8, 12]
    ]


def test_a_side_way_that_comes_back_into_a_loop_begins_none() -> None:
    """The jump back from behind the loop does not lead to its head."""
    text = "l1: addi r3,r3,1; bc 12,2,side; addi r6,r6,1; back: addi r4,r4,1; bc 16,0,l1; b out; "
    text += "side: addi r5,r5,1; b back; out: nop"
    assert _loops(text) == [[0, 4, 8, 12, 16, 24, 28]]


def test_a_way_out_of_a_loop_is_not_in_it() -> None:
    assert _loops("l1: addi r3,r3,1; bc 12,2,l3; bc 16,0,l1; l3: addi r4,r4,1; b l4; l4: nop") == [[0, 4, 8]]


def test_an_instruction_alone_can_be_a_loop() -> None:
    assert _loops("nop; l1: bc 16,0,l1; nop") == [[4]]


def test_a_loop_with_a_call_is_not_tight() -> None:
    """Nor is what lies between the call and the jump back, to which control does not come from the head."""
    assert _loops("l1: addi r3,r3,1; bl l2; addi r4,r4,1; bc 16,0,l1; l2: bclr 20,0,0") == []


def test_a_loop_with_a_jump_by_register_is_not_tight() -> None:
    assert _loops("l1: addi r3,r3,1; bcctr 12,2,0; bc 16,2,l1; nop") == []
