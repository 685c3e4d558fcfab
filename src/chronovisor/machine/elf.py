"""Loading a guest's image: 64-bit Power ELF files of either endianness and either ABI.

Sources: the System V ABI's ELF chapter; the 64-bit PowerPC ELF ABI 1.9 (function descriptors) and the
OpenPOWER ELF V2 ABI (global entry points take their own address in r12).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from chronovisor.machine.boot_file import BootFile, Contents, GivenBytes
from chronovisor.machine.errors import ImageError
from chronovisor.machine.files import find_image
from chronovisor.memory import GuestMemory

PIE_BASE: Final = 0x40_0000
"""The load address of an image that is linked at 0 and can run anywhere: the usual one for kernels."""
_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x89LZO": "lzop",
    b"\x5d\x00\x00": "lzma",
}
"""What compressed files begin with, and what makes them."""
_OTHER_KERNELS: Final = (
    (0x202, b"HdrS", "a Linux kernel for x86 (bzImage)"),
    (0x24, b"\x18\x28\x6f\x01", "a Linux kernel for 32-bit Arm (zImage)"),
    (0x38, b"ARM\x64", "a Linux kernel for 64-bit Arm (Image)"),
    (0x38, b"RSC\x05", "a Linux kernel for RISC-V (Image)"),
    (0, b"\x27\x05\x19\x56", "an image for U-Boot (uImage)"),
    (0, b"MZ", "a program for EFI"),
)
"""What kernels have that are no ELF files: where, which bytes, and what such a file is."""
_BOOT_WRAPPER: Final = b"\0.kernel:vmlinux"
"""The name of the section in which Linux's boot wrapper for Power keeps the compressed kernel."""
_LOOKED_THROUGH: Final = 1 << 16
"""Bytes of the sections' names that are searched for it: a wrapper has few sections."""
_HEAD: Final = 1 << 10
"""Bytes in which it shows what kind of file it is."""
_DAMAGED: Final = (ELFError, ConstructError, AttributeError, KeyError, TypeError, ValueError, OverflowError)
"""What pyelftools may raise in damaged tables: whatever its parsing of them happens to."""
_REAL_ADDRESS: Final = (1 << 60) - 1
_CLEARED_AT_ONCE: Final = 1 << 20
_ABI_MASK: Final = 3
_EXECUTABLE: Final = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """What is loaded at a real address: `filled` bytes from `offset` of the file, then zeros up to `size`."""

    addr: int
    offset: int
    filled: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.addr + self.size


@dataclass(frozen=True, slots=True)
class Image:
    """A guest's image, ready to be put into memory."""

    name: str
    little: bool
    abi: int
    """1 or 2."""
    entry: int
    """The real address of the first instruction."""
    toc: int
    """What r2 must hold at the entry: the descriptor's word under ABI v1, 0 under v2."""
    segments: tuple[Segment, ...]
    """By rising address; they do not overlap."""
    contents: Contents

    def load_into(self, memory: GuestMemory) -> None:
        """Read the image into memory. ImageError if a segment lies outside, and then nothing is written; or
        if the file cannot be read any more.
        """
        for segment in self.segments:
            if segment.end > memory.size:
                raise ImageError(
                    f"{self.name}: its segment at {segment.addr:#x} to {segment.end - 1:#x} lies outside the "
                    f"guest's memory of {memory.size:#x} bytes; give it more with --memory"
                )
        for segment in self.segments:
            behind = segment.addr + segment.filled
            self.contents.read_into(memory.view[segment.addr : behind], segment.offset)
            memory.dirty.mark(segment.addr, segment.filled)
            _clear(memory, behind, segment.end)


def read_image(path: str | Path) -> Image:
    """Read an image from a file. If there is no file of that name, read the shipped guest of that name.

    ImageError says in one line what is wrong with the file.
    """
    file = BootFile(find_image(path))
    return parse_image(file, file.name)


def parse_image(contents: Contents | bytes, name: str) -> Image:
    """Read what an ELF file says of the image that it holds; `name` is what errors call it.

    The image's own bytes are read when it is loaded.
    """
    if isinstance(contents, bytes):
        contents = GivenBytes(contents)
    try:
        with contents.open() as stream:
            return _checked(stream, contents, name)
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}") from None


def _checked(stream: BinaryIO, contents: Contents, name: str) -> Image:
    data = stream.read(_HEAD)
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if data[:4] != b"\x7fELF":
        raise ImageError(f"{name}: this is not an ELF file{_but(data)}")
    if len(data) < 64:
        raise ImageError(f"{name}: the file ends within its ELF header")
    if data[4] not in (1, 2):
        raise ImageError(f"{name}: its class {data[4]} is neither 32-bit nor 64-bit")
    if data[5] not in (1, 2):
        raise ImageError(f"{name}: its byte order {data[5]} is neither little nor big endian")
    if _is_wrapped(stream):
        raise ImageError(
            f"{name}: this is a kernel in a boot wrapper (zImage), which needs Open Firmware; "
            "give the vmlinux that it was made from"
        )
    if data[4] == 1:
        raise ImageError(f"{name}: this is a 32-bit ELF file; guests are 64-bit Power")
    try:
        return _parse(ELFFile(stream), contents, name)
    except _DAMAGED as error:
        raise ImageError(f"{name}: its ELF tables are damaged ({error})") from None


def _is_wrapped(stream: BinaryIO) -> bool:
    """Whether it is Linux's boot wrapper with a kernel in it: its sections have such names."""
    with contextlib.suppress(*_DAMAGED):
        elf: Any = ELFFile(stream)
        if elf.header.e_shnum:
            names = elf.get_section(elf.header.e_shstrndx).header
            stream.seek(names.sh_offset)
            return _BOOT_WRAPPER in stream.read(min(names.sh_size, _LOOKED_THROUGH))
    return False


def _but(data: bytes) -> str:
    """What a file is that is not an ELF file, as far as it can be told."""
    for magic, how in _COMPRESSED.items():
        if data.startswith(magic):
            return f" but one that {how} compressed; unpack it first"
    for at, magic, what in _OTHER_KERNELS:
        if data[at : at + len(magic)] == magic:
            return f" but {what}; give the vmlinux of a kernel for 64-bit Power"
    return ""


def _clear(memory: GuestMemory, start: int, end: int) -> None:
    """Make it zeros. Pages that were never touched are zeros already and stay untouched."""
    for at in range(start, end, _CLEARED_AT_ONCE):
        size = min(_CLEARED_AT_ONCE, end - at)
        if memory.read(at, size).count(0) != size:
            memory.write(at, bytes(size))


def _parse(elf: Any, contents: Contents, name: str) -> Image:
    header = elf.header
    if header.e_machine != "EM_PPC64":
        raise ImageError(f"{name}: it is for {_machine(header.e_machine)}, not for 64-bit Power")
    if header.e_type not in ("ET_EXEC", "ET_DYN"):
        raise ImageError(f"{name}: it is not linked into an executable image ({header.e_type})")
    if header.e_phnum == 0:
        raise ImageError(f"{name}: it has no program headers, so nothing to load")
    if header.e_phentsize != 56 or header.e_phoff + header.e_phnum * 56 > contents.size:
        raise ImageError(f"{name}: the file is truncated: its program headers lie behind its end")
    headers = [elf.get_segment(n).header for n in range(header.e_phnum)]
    loads = [h for h in headers if h.p_type == "PT_LOAD" and h.p_memsz]
    if not loads:
        raise ImageError(f"{name}: it has no segment to load")
    for load in loads:
        _check_load(load, contents.size, name)
    base = PIE_BASE if header.e_type == "ET_DYN" and min(h.p_vaddr for h in loads) < 0x1000 else 0
    segments = tuple(
        sorted(
            (Segment(_real(h, header.e_type) + base, h.p_offset, h.p_filesz, h.p_memsz) for h in loads),
            key=lambda segment: segment.addr,
        )
    )
    for below, above in pairwise(segments):
        if below.end > above.addr:
            raise ImageError(
                f"{name}: its segments at {below.addr:#x} and {above.addr:#x} overlap; link it again"
            )
    little = header.e_ident.EI_DATA == "ELFDATA2LSB"
    abi = header.e_flags & _ABI_MASK or (2 if little else 1)
    entry, toc = _entry(elf, loads, base, little, abi, name)
    return Image(name, little, abi, entry, toc, segments, contents)


def _machine(machine: object) -> str:
    return str(machine).removeprefix("EM_") if isinstance(machine, str) else f"machine {machine}"


def _real(header: Any, kind: str) -> int:
    address: int = header.p_vaddr if kind == "ET_DYN" else header.p_paddr
    return address & _REAL_ADDRESS


def _check_load(header: Any, file_size: int, name: str) -> None:
    if header.p_offset + header.p_filesz > file_size:
        raise ImageError(
            f"{name}: the file is truncated: its segment for {header.p_vaddr:#x} ends at byte "
            f"{header.p_offset + header.p_filesz}, the file at {file_size}"
        )
    if header.p_filesz > header.p_memsz:
        raise ImageError(f"{name}: its segment for {header.p_vaddr:#x} is larger in the file than in memory")


def _entry(elf: Any, loads: list[Any], base: int, little: bool, abi: int, name: str) -> tuple[int, int]:
    """The first instruction's real address and r2, from the function descriptor if the entry is one."""
    entry: int = elf.header.e_entry
    home = _home(loads, entry)
    if home is None:
        raise ImageError(f"{name}: its entry point {entry:#x} lies in no segment")
    toc = 0
    if abi == 1 and _is_descriptor(elf, home, entry):
        order: Literal["little", "big"] = "little" if little else "big"
        at = home.p_offset + entry - home.p_vaddr
        elf.stream.seek(at)
        descriptor = elf.stream.read(16) if entry + 16 <= home.p_vaddr + home.p_filesz else b""
        if len(descriptor) < 16:
            raise ImageError(f"{name}: the function descriptor of its entry point {entry:#x} is cut off")
        entry = int.from_bytes(descriptor[:8], order)
        toc = int.from_bytes(descriptor[8:], order) + base
        home = _home(loads, entry)
        if home is None:
            raise ImageError(f"{name}: its entry point's descriptor names {entry:#x}, outside its segments")
    if entry % 4:
        raise ImageError(f"{name}: its entry point {entry:#x} is no multiple of 4")
    return _real(home, elf.header.e_type) + (entry - home.p_vaddr) + base, toc


def _home(loads: list[Any], address: int) -> Any:
    return next((h for h in loads if h.p_vaddr <= address < h.p_vaddr + h.p_memsz), None)


def _is_descriptor(elf: Any, home: Any, entry: int) -> bool:
    """Whether an ABI v1 entry point names a descriptor: in `.opd`, or, without sections, at a place at which
    no code can be.
    """
    if elf.header.e_shnum:
        opd = elf.get_section_by_name(".opd")
        return opd is not None and opd.header.sh_addr <= entry < opd.header.sh_addr + opd.header.sh_size
    return not home.p_flags & _EXECUTABLE
