"""Machine code in files: places and names, and files that have none."""

import contextlib
import gzip
from pathlib import Path

import pytest
from machine.elf_files import EM_X86_64, Elf, Part, program

from chronovisor.isa.assembly import assemble
from chronovisor.proof.code.image import CodeError, PlaceError, parse_code, read_code
from chronovisor.proof.code.time_writes import around, listing, time_writes

from .power_files import ORIGIN, built, stripped

TWO_FUNCTIONS = """
        .globl first
        .type first,@function
first:  li 3,1
        bl second
        bl elsewhere
        blr
        .type second,@function
second: mttbu40 5
        blr
"""


@pytest.mark.oracle
@pytest.mark.parametrize("little", [True, False])
def test_an_object_file_has_places_by_name_and_says_what_linking_will_do(
    tmp_path: Path, little: bool
) -> None:
    image = read_code(built(tmp_path, TWO_FUNCTIONS, little))
    assert image.little == little
    first, second = image.address_of("first"), image.address_of("second")
    assert (first, second) == (0, 16)
    assert image.place(second + 4) == "second+0x4"
    assert image.address_of("second+0x4") == image.address_of(".text+20") == second + 4
    assert image.word(first) == 0x38600001
    assert image.relocations[8].symbol == "elsewhere"
    assert image.relocations[8].target is None
    (write,) = time_writes(image)
    assert (write.register, write.address, write.source) == ("TBU40", second, 5)
    assert [line.text for line in listing(image, range(8, 20, 4))] == [
        "bl .+0x0  # elsewhere (R_PPC64_REL24)",
        "bclr 20,0,0",
        "mtspr TBU40,r5",
    ]


@pytest.mark.oracle
@pytest.mark.parametrize("little", [True, False])
def test_an_executable_and_one_that_was_stripped(tmp_path: Path, little: bool) -> None:
    path = built(tmp_path, TWO_FUNCTIONS.replace("bl elsewhere", "nop"), little, link=True)
    image = read_code(path)
    assert image.address_of("second") == ORIGIN + 16
    assert [line.text for line in around(image, ORIGIN + 4, 0, 0)] == ["bl second"]
    bare = read_code(stripped(path, little))
    assert bare.place(ORIGIN + 16) == ".text+0x10"
    assert [write.address for write in time_writes(bare)] == [ORIGIN + 16]
    with pytest.raises(PlaceError, match="no code called 'second'; the file has no symbols: give addresses"):
        bare.address_of("second")


@pytest.mark.oracle
def test_functions_behind_descriptors(tmp_path: Path) -> None:
    source = "unsigned long time(void) { return __builtin_ppc_get_timebase(); } int zero(void) { return 0; }"
    for link in (False, True):
        image = read_code(built(tmp_path, source, little=False, link=link, suffix=".c"))
        where = image.address_of("time")
        assert [line.text for line in listing(image, [where])] == ["mfspr r3,TB"]


@pytest.mark.parametrize("little", [True, False])
def test_a_file_without_sections_has_its_segments(little: bool) -> None:
    image = parse_code(program("nop; mtspr HDEC,r9; nop", little), "it")
    (write,) = time_writes(image)
    assert (write.register, write.address, write.source) == ("HDEC", ORIGIN + 4, 9)
    assert image.place(write.address) == f"{ORIGIN + 4:#x}"


def test_the_bytes_of_a_write_that_lie_across_two_instructions_are_none() -> None:
    code = b"\0\0" + assemble("mtspr TBU40,r3") + b"\0\0" + assemble("mtspr TBU40,r4")
    image = parse_code(Elf([Part(code, ORIGIN)], ORIGIN, little=False).build(), "it")
    assert [(write.address, write.source) for write in time_writes(image)] == [(ORIGIN + 8, 4)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it: the file is empty"),
        (b"#!/bin/sh\n", "it: this is not an ELF file"),
        (gzip.compress(b"vmlinux", mtime=0), r"it: this is compressed \(gzip\); unpack it first"),
        (b"\xfd7zXZ\0\0", r"it: this is compressed \(xz\); unpack it first"),
        (
            Elf([Part(b"1234", ORIGIN)], ORIGIN, machine=EM_X86_64).build(),
            r"it: it is for X86_64 \(64 bits\), not for 64-bit Power",
        ),
        (Elf([Part(b"1234", ORIGIN, flags=4)], ORIGIN).build(), "it: it holds no code"),
        (program("nop")[:70], r"it: its ELF tables are damaged .*"),
    ],
)
def test_a_file_that_has_no_code_for_us(data: bytes, why: str) -> None:
    with pytest.raises(CodeError, match=f"^{why}$"):
        parse_code(data, "it")


@pytest.mark.parametrize("cut", range(0, 700, 23))
def test_a_damaged_file_is_an_error_and_no_crash(cut: int) -> None:
    whole = Elf([Part(assemble("nop"), ORIGIN)], ORIGIN, sections={".text": (ORIGIN, 4)}).build()
    for data in (whole[:cut], whole[:cut] + b"\xff\xff\xff\xff" + whole[cut + 4 :]):
        with contextlib.suppress(CodeError):
            parse_code(data, "it")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere", "no code called 'nowhere'"),
        ("0x10002", "which is no multiple of 4"),
        ("0x20000", "where the file has no code"),
        ("a b", "no code called 'a b'"),
        ("", "no code called ''"),
    ],
)
def test_a_place_that_is_not_there(place: str, why: str) -> None:
    image = parse_code(Elf([Part(assemble("nop"), ORIGIN)], ORIGIN, little=False).build(), "it")
    with pytest.raises(PlaceError, match=why):
        image.address_of(place)
