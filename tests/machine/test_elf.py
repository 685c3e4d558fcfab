"""Images: what is loaded where, and that whatever is wrong with one is said in a line."""

import contextlib
from pathlib import Path

import pytest
from elf_files import EM_PPC, EM_X86_64, ET_DYN, ET_REL, POWER_OFF, Elf, Part, R, W, X, program
from hypothesis import given, settings
from hypothesis import strategies as st

from chronovisor.machine import ImageError
from chronovisor.machine.elf import PIE_BASE, Image, parse_image, read_image
from chronovisor.machine.files import SHIPPED
from chronovisor.memory import GuestMemory

CODE = b"\0\0\0\x60" * 4


def test_what_is_loaded_is_the_segments_and_zeros() -> None:
    image = parse_image(Elf([Part(CODE, 0x4000, memsz=40), Part(b"abc", 0x2000)], 0x4004).build(), "x")
    memory = GuestMemory(0x8000)
    memory.write(0, b"\xff" * 0x8000)
    image.load_into(memory)
    assert memory.read(0x4000, 41) == CODE + bytes(24) + b"\xff"
    assert memory.read(0x2000, 4) == b"abc\xff"
    assert (image.entry, image.little, image.abi, image.toc) == (0x4004, True, 2, 0)


def test_a_segment_goes_to_its_physical_address_and_the_entry_with_it() -> None:
    image = parse_image(
        Elf([Part(CODE, 0x3000, vaddr=0xC000_0000_0000_1000)], 0xC000_0000_0000_1008).build(), "x"
    )
    assert image.segments[0].addr == 0x3000
    assert image.entry == 0x3008


@pytest.mark.parametrize("little", [True, False])
def test_what_can_run_anywhere_goes_to_four_megabytes(little: bool) -> None:
    image = parse_image(Elf([Part(CODE, 0)], 4, little, type=ET_DYN).build(), "x")
    assert (image.segments[0].addr, image.entry) == (PIE_BASE, PIE_BASE + 4)


def test_under_the_first_abi_the_entry_point_is_a_descriptor() -> None:
    descriptor = (0x4008).to_bytes(8, "big") + (0xCAFE).to_bytes(8, "big") + bytes(8)
    parts = [Part(CODE, 0x4000, flags=R | X), Part(descriptor, 0x5000, flags=R | W)]
    image = parse_image(Elf(parts, 0x5000, little=False, flags=1).build(), "x")
    assert (image.abi, image.entry, image.toc) == (1, 0x4008, 0xCAFE)


def test_under_the_first_abi_an_entry_point_in_code_is_code() -> None:
    image = parse_image(Elf([Part(CODE, 0x4000, flags=R | X)], 0x4008, little=False, flags=1).build(), "x")
    assert (image.abi, image.entry, image.toc) == (1, 0x4008, 0)


@pytest.mark.parametrize(("entry", "found"), [(0x5000, 0x4008), (0x4004, 0x4004)])
def test_sections_say_whether_the_entry_point_is_a_descriptor(entry: int, found: int) -> None:
    """Where one segment holds code and descriptors, both of which may be written and executed."""
    descriptor = (0x4008).to_bytes(8, "big") + bytes(16)
    part = Part(CODE.ljust(0x1000, b"\0") + descriptor, 0x4000)
    sections = {".text": (0x4000, 16), ".opd": (0x5000, 24)}
    elf = Elf([part], entry, little=False, flags=1, sections=sections)
    assert parse_image(elf.build(), "x").entry == found


@pytest.mark.parametrize(
    ("elf", "said"),
    [
        (Elf([Part(CODE, 0x4000)], 0x4000, machine=EM_X86_64), "it is for X86_64, not for 64-bit Power"),
        (Elf([Part(CODE, 0x4000)], 0x4000, machine=EM_PPC), "it is for PPC, not"),
        (Elf([Part(CODE, 0x4000)], 0x4000, machine=0xBEEF), "it is for machine 48879, not"),
        (Elf([Part(CODE, 0x4000)], 0x4000, elf_class=1), "32-bit"),
        (Elf([Part(CODE, 0x4000)], 0x4000, elf_class=7), "class 7"),
        (Elf([Part(CODE, 0x4000)], 0x4000, sections={".kernel:vmlinux.strip": (0, 4)}), "boot wrapper"),
        (Elf([Part(CODE, 0x4000)], 0x4000, data=3), "byte order 3"),
        (Elf([Part(CODE, 0x4000)], 0x4000, type=ET_REL), "not linked"),
        (Elf([], 0x4000), "no program headers"),
        (Elf([Part(CODE, 0x4000, type=4)], 0x4000), "no segment to load"),
        (Elf([Part(CODE, 0x4000)], 0x9000), "entry point 0x9000 lies in no segment"),
        (Elf([Part(CODE, 0x4000)], 0x4002), "no multiple of 4"),
        (Elf([Part(CODE, 0x4000), Part(CODE, 0x4008)], 0x4000), "0x4000 and 0x4008 overlap"),
        (Elf([Part(CODE, 0x4000, memsz=4)], 0x4000), "larger in the file than in memory"),
        (Elf([Part(CODE, 0x4000, offset=0x1000)], 0x4000), "truncated"),
        (Elf([Part(CODE, 0x4000, flags=R)], 0x400C, little=False), "descriptor .* is cut off"),
        (Elf([Part(b"\xee" * 16, 0x4000, flags=R)], 0x4000, little=False), "descriptor names 0xeeee"),
    ],
)
def test_a_wrong_image_is_refused_in_one_line(elf: Elf, said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        parse_image(elf.build(), "wrong.elf")
    assert str(caught.value).startswith("wrong.elf: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("addr", "memsz"), [(0x7FF0, 17), (0x8000, 16), (1 << 59, 16), (0x4000, 1 << 62)])
def test_a_segment_outside_memory_is_refused_and_nothing_written(addr: int, memsz: int) -> None:
    image = parse_image(Elf([Part(CODE, 0x1000), Part(CODE, addr, memsz=memsz)], 0x1000).build(), "x")
    memory = GuestMemory(0x8000)
    with pytest.raises(ImageError, match="lies outside"):
        image.load_into(memory)
    assert memory.dirty.take() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"#!/bin/sh\n", "not an ELF file"), (b"\x7fELF\x02\x01", "ends within")],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.elf"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said):
        read_image(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "none.elf")


def test_every_truncation_of_an_image_is_refused() -> None:
    whole = program(POWER_OFF)
    for size in range(len(whole)):
        with pytest.raises(ImageError):
            parse_image(whole[:size], "x")


WHOLE = [(SHIPPED / name).read_bytes() for name in ("hello-le.elf", "hello-be.elf")]


@settings(max_examples=400)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 0x180), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_image_is_an_image_or_refused(whole: bytes, damage: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for at, byte in damage:
        data[at] = byte
    try:
        image = parse_image(bytes(data), "x")
    except ImageError:
        return
    assert isinstance(image, Image)
    assert any(s.addr <= image.entry < s.end for s in image.segments)


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic_number_are_an_image_or_refused(rest: bytes) -> None:
    with contextlib.suppress(ImageError):
        parse_image(b"\x7fELF\x02\x01" + rest, "x")


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.glob("*.elf")))
def test_shipped_images_are_found_by_their_bare_name(name: str) -> None:
    image = read_image(name)
    assert image.little == name.endswith("-le.elf")
    assert image.abi == (2 if image.little else 1)
