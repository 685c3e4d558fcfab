"""Switches of the timebase recognised in machine code: our own, a compiler's, and what is none."""

from pathlib import Path

import pytest
from machine.elf_files import program

from chronovisor.proof import machine_code
from chronovisor.proof.code.assumptions import Register, Word
from chronovisor.proof.code.image import CodeImage, parse_code, read_code
from chronovisor.proof.code.offset_switch import OffsetSwitch, offset_switches
from chronovisor.proof.code.properties import prove_code, prove_each
from chronovisor.proof.code.time_writes import time_writes
from chronovisor.proof.prover import Outcome

from .power_files import built
from .test_code_property import ADD, ORIGIN, SUBTRACT


def switches(image: CodeImage) -> list[OffsetSwitch]:
    return list(offset_switches(image, time_writes(image)))


def image_of(text: str, little: bool = False) -> CodeImage:
    return parse_code(program(text + "\nnop; nop; blr", little, ORIGIN), "code")


@pytest.mark.parametrize(
    ("text", "place", "subtracts"),
    [
        (ADD, Word(72, 4), False),
        (SUBTRACT, Word(72, 4), True),
        (machine_code.ADD_OFFSET, Word(0, 3), False),
        (machine_code.TAKE_OFFSET_AWAY, Word(0, 3), True),
    ],
)
def test_a_switch_in_assembly(text: str, place: Word, subtracts: bool) -> None:
    (switch,) = switches(image_of("li r9,1; " + text))
    claim = switch.claim
    assert (claim.start, claim.end) == (ORIGIN + 4, ORIGIN + 4 + 4 * 13)
    assert (claim.shifts_by, claim.subtracts, claim.keeps) == (place, subtracts, ())
    assert [str(one) for one in claim.assumptions] == [f"{place} & 0xffffff = 0x0"]
    assert len(switch.writes) == 2
    assert switch.remembering is None


def test_a_switch_that_keeps_the_time_and_remembers_the_offset() -> None:
    text = ADD.replace("mfspr   r15, TB", "ld r15,0(r6)").replace("beq     done", "beq     end")
    text = text.replace("done:   nop", "done: std r14,0(r6); ld r7,72(r4); std r7,80(r4)\nend: nop")
    (switch,) = switches(image_of(text))
    assert switch.claim.keeps == (Word(0, 6),)
    assert switch.remembering is not None
    assert switch.remembering.remembers == Word(80, 4)
    assert {str(one) for one in switch.claim.assumptions} == {
        "72(r4) & 0xffffff = 0x0",
        "age(0(r6)) <= 16777215",
        "apart(72(r4), 0(r6), 80(r4))",
    }


def test_an_offset_in_a_register_and_no_check_at_all() -> None:
    image = image_of("mfspr r3,TB; add r3,r3,r31; mtspr TBU40,r3")
    (switch,) = switches(image)
    assert (switch.claim.shifts_by, switch.claim.end) == (Register(31), ORIGIN + 12)
    assert len(switch.writes) == 1
    assert prove_code(image, switch.claim, 60.0).outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    "text",
    [
        "mtspr TBU40,r4; blr",
        "add r4,r5,r6; mtspr TBU40,r4",
        "ld r4,0(r3); mtspr TBU40,r4",
        "mfspr r5,TB; add r4,r5,r6; blr; mtspr TBU40,r4",
        "mfspr r5,TB; add r4,r5,r6; bl .+8; mtspr TBU40,r4",
        "mfspr r5,TB; add r4,r5,r6; mtspr DEC,r4",
    ],
)
def test_what_is_no_switch(text: str) -> None:
    assert switches(image_of(text)) == []


COMPILED = """
struct core {{ unsigned long before[9]; {offset} unsigned long offset; unsigned long applied; }};
static inline unsigned long now(void) {{ unsigned long t; asm volatile("mfspr %0,268" : "=r"(t)); return t; }}
static inline void set(unsigned long t) {{ asm volatile("mtspr 286,%0" : : "r"(t)); }}
void enter(struct core *core)
{{
    unsigned long found = core->offset;
    if (found) {{
        unsigned long t = now() + found;
        set(t);
        if ((now() & 0xffffff) < (t & 0xffffff)) {{
            t += 0x1000000;
            set(t);
        }}
        core->applied = {again};
    }}
}}
"""


@pytest.mark.oracle
@pytest.mark.parametrize("little", [True, False])
def test_a_switch_that_a_compiler_made(tmp_path: Path, little: bool) -> None:
    image = read_code(built(tmp_path, COMPILED.format(offset="", again="found"), little, suffix=".c"))
    (switch,) = switches(image)
    assert image.place(switch.claim.start).startswith("enter")
    assert [finding.outcome for finding in prove_each(image, switch.claim)] == [Outcome.PROVEN] * 2
    assert switch.remembering is not None
    assert prove_code(image, switch.remembering).outcome is Outcome.PROVEN


@pytest.mark.oracle
def test_an_offset_that_a_compiler_loads_twice(tmp_path: Path) -> None:
    source = COMPILED.format(offset="volatile", again="core->offset")
    image = read_code(built(tmp_path, source, suffix=".c"))
    (switch,) = switches(image)
    assert switch.remembering is not None
    finding = prove_code(image, switch.remembering)
    assert finding.requirement == switch.remembering.remembered_words
    assert switch.steady is not None
    assert prove_code(image, switch.steady).outcome is Outcome.PROVEN
