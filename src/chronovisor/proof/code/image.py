"""Machine code in files: executables, kernels, kernel modules and object files of 64-bit Power.

The module reads the sections that hold instructions (or the segments, if a file has no section headers), the
symbols, and the relocations within the code of an object file. Addresses are the file's own. An object file
has no addresses yet: its sections are laid out one after another from 0, `.text` first.

Sources, cited from memory: the System V ABI's ELF chapter; the 64-bit PowerPC ELF ABI 1.9 (function
descriptors in `.opd`); the OpenPOWER ELF V2 ABI.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_RELOC_TYPE_PPC64

_COMPRESSED: Final = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
}
_FUNCTION, _NO_TYPE = 2, 0
_UNDEFINED = 0
_RELOCATIONS: Final = {number: name for name, number in ENUM_RELOC_TYPE_PPC64.items() if name != "_default_"}
_RELATIVE_24: Final = "R_PPC64_REL24"
_ADDRESS_64: Final = "R_PPC64_ADDR64"
_PLACE = re.compile(r"(?P<symbol>[^+\s]+)(?:\+(?P<offset>0[xX][0-9a-fA-F]+|\d+))?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|\d+")
_WORD = 4


class CodeError(Exception):
    """The code of a file cannot be read. The text is one line for people."""


class PlaceError(CodeError):
    """A place that is not in a file's code."""


@dataclass(frozen=True, slots=True)
class Section:
    """Instructions at an address."""

    name: str
    address: int
    data: bytes

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + len(self.data)

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.end


@dataclass(frozen=True, slots=True)
class Relocation:
    """A change that linking or loading will make to an instruction."""

    kind: str
    symbol: str
    target: int | None
    """The address that it names, if this file has it."""


@dataclass(frozen=True, slots=True)
class CodeImage:
    """The code of a file."""

    name: str
    little: bool
    sections: tuple[Section, ...]
    symbols: Mapping[str, int]
    """Addresses in the code by the names of functions and labels."""
    starts: tuple[tuple[int, str], ...]
    """The starts of functions and labels, by rising address, one name each."""
    relocations: Mapping[int, Relocation] = field(default_factory=dict)
    """By the address of the instruction."""

    def section_at(self, address: int) -> Section | None:
        """Return the section that holds an address."""
        return next((section for section in self.sections if address in section), None)

    def word(self, address: int) -> int | None:
        """Return the instruction word at an address, or None if there is no code."""
        section = self.section_at(address)
        if section is None or address % _WORD or address + _WORD > section.end:
            return None
        at = address - section.address
        return int.from_bytes(section.data[at : at + _WORD], "little" if self.little else "big")

    def function_at(self, address: int) -> tuple[str, int] | None:
        """Return the last symbol up to an address in its section, with its address; None if there is none."""
        place = bisect_right(self.starts, (address, "\U0010ffff")) - 1
        if place < 0:
            return None
        start, name = self.starts[place]
        section = self.section_at(address)
        return (name, start) if section is not None and start in section else None

    def place(self, address: int) -> str:
        """Return an address as people write it: `function+0x88`, without symbols `.text+0x40`, or a number.

        `address_of` reads it.
        """
        found = self.function_at(address)
        if found is None:
            section = self.section_at(address)
            if section is None or not section.name:
                return f"{address:#x}"
            found = section.name, section.address
        return found[0] if address == found[1] else f"{found[0]}+{address - found[1]:#x}"

    def address_of(self, place: str) -> int:
        """Return the address of `SYMBOL[+OFFSET]`, `SECTION[+OFFSET]` or a number.

        Raises `PlaceError` where there is no such thing, or no instruction.
        """
        if _NUMBER.fullmatch(place):
            address = _integer(place)
        else:
            found = _PLACE.fullmatch(place)
            base = None if found is None else self._named(found["symbol"])
            if found is None or base is None:
                wanted = place if found is None else found["symbol"]
                why = "" if self.symbols else "; the file has no symbols: give addresses"
                raise PlaceError(f"{self.name}: there is no code called {wanted!r}{why}")
            address = base + _integer(found["offset"] or "0")
        if address % _WORD:
            raise PlaceError(f"{self.name}: {place} is {address:#x}, which is no multiple of {_WORD}")
        if not any(section.address <= address <= section.end for section in self.sections):
            raise PlaceError(f"{self.name}: {place} is {address:#x}, where the file has no code")
        return address

    def _named(self, name: str) -> int | None:
        found = self.symbols.get(name)
        if found is None:
            found = next((section.address for section in self.sections if section.name == name), None)
        return found


def read_code(path: str | Path) -> CodeImage:
    """Read the code of a file. Raises `CodeError` if the file has no code that can be read."""
    try:
        return parse_code(Path(path).read_bytes(), str(path))
    except IsADirectoryError:
        raise CodeError(f"{path}: this is a directory, not an ELF file") from None
    except OSError as error:
        raise CodeError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise CodeError(f"{str(path)!r}: {error}") from None


def parse_code(data: bytes, name: str) -> CodeImage:
    """Read the code of an ELF file's bytes. Errors call the file `name`."""
    for magic, what in _COMPRESSED.items():
        if data.startswith(magic):
            raise CodeError(f"{name}: this is compressed ({what}); unpack it first")
    if data[:4] != b"\x7fELF":
        raise CodeError(f"{name}: this is not an ELF file" if data else f"{name}: the file is empty")
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.elfclass != 64 or elf.header.e_machine != "EM_PPC64":
            machine = str(elf.header.e_machine).removeprefix("EM_")
            raise CodeError(f"{name}: it is for {machine} ({elf.elfclass} bits), not for 64-bit Power")
        return _Reader(elf, data, name).image()
    except (ELFError, ConstructError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        # For damaged tables, pyelftools raises whatever its parsing happens to run into.
        raise CodeError(f"{name}: its ELF tables are damaged ({error})") from None
    except (OverflowError, struct.error, UnicodeDecodeError) as error:
        raise CodeError(f"{name}: its ELF tables are damaged ({error})") from None


class _Reader:
    """Reads one file."""

    def __init__(self, elf: Any, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._little = bool(elf.little_endian)
        self._order = "<" if self._little else ">"
        self._movable = elf.header.e_type == "ET_REL"
        self._headers = [(section.name, section.header) for section in elf.iter_sections()]
        self._segments = [segment.header for segment in elf.iter_segments()]
        self._addresses = self._laid_out()

    def image(self) -> CodeImage:
        code = {
            number: Section(name, self._addresses[number], self._content(header))
            for number, (name, header) in enumerate(self._headers)
            if _holds_code(header)
        }
        # A symbol names its section by number.
        sections = list(code.values()) if self._headers else self._code_segments()
        if not any(section.data for section in sections):
            inner = next((name for name, _ in self._headers if name.startswith(".kernel:")), None)
            why = f"; it wraps a compressed kernel ({inner}): unpack that" if inner else ""
            raise CodeError(f"{self._name}: it holds no code{why}")
        named: dict[str, int] = {}
        best: dict[int, tuple[bool, str]] = {}
        for symbol in self._symbols:
            address = self._code_address(symbol, code)
            if address is None or not symbol.name:
                continue
            named.setdefault(symbol.name.removeprefix("."), address)
            rank = (symbol.kind != _FUNCTION, symbol.name.removeprefix("."))
            best[address] = min(rank, best.get(address, rank))
        return CodeImage(
            self._name,
            self._little,
            tuple(sorted(sections, key=lambda section: section.address)),
            named,
            tuple(sorted((address, name) for address, (_, name) in best.items())),
            self._relocations(code) if self._movable else {},
        )

    def _laid_out(self) -> list[int]:
        """An address for each section."""
        addresses = [int(header.sh_addr) for _, header in self._headers]
        if self._movable:
            at = 0
            in_order = sorted(
                (number for number, (_, header) in enumerate(self._headers) if _holds_code(header)),
                key=lambda number: (self._headers[number][0] != ".text", number),
            )
            for number in in_order:
                header = self._headers[number][1]
                at += -at % max(header.sh_addralign, _WORD)
                addresses[number] = at
                at += header.sh_size
        return addresses

    def _content(self, header: Any) -> bytes:
        start, end = header.sh_offset, header.sh_offset + header.sh_size
        if end > len(self._data):
            raise CodeError(
                f"{self._name}: the file is truncated: a section ends at byte {end}, "
                f"the file at {len(self._data)}"
            )
        return self._data[start:end]

    def _code_segments(self) -> list[Section]:
        return [
            Section("", h.p_vaddr, self._data[h.p_offset : h.p_offset + h.p_filesz])
            for h in self._segments
            if h.p_type == "PT_LOAD" and h.p_flags & P_FLAGS.PF_X
        ]

    @cached_property
    def _symbols(self) -> list[_Symbol]:
        # A kernel has a hundred thousand symbols. pyelftools makes several objects of each: seconds.
        table = self._table("SHT_SYMTAB") or self._table("SHT_DYNSYM")
        if table is None:
            return []
        names = self._content(self._headers[table.sh_link][1])
        entries = struct.iter_unpack(self._order + "IBBHQQ", self._content(table))
        return [
            _Symbol(names[at : names.index(b"\0", at)].decode(), info & 0xF, section, value)
            for at, info, _, section, value, _ in entries
        ]

    def _table(self, kind: str) -> Any:
        return next((header for _, header in self._headers if header.sh_type == kind), None)

    def _code_address(self, symbol: _Symbol, code: Mapping[int, Section]) -> int | None:
        """The address of a symbol's code, or None if it names no code."""
        if symbol.kind not in (_FUNCTION, _NO_TYPE) or symbol.section >= len(self._headers):
            return None
        if symbol.section in code:
            return symbol.value + (self._addresses[symbol.section] if self._movable else 0)
        if symbol.kind == _FUNCTION and self._headers[symbol.section][0] == ".opd":
            return self._described(symbol)
        return None

    def _described(self, symbol: _Symbol) -> int | None:
        """The code that a function descriptor names."""
        header = self._headers[symbol.section][1]
        at = symbol.value - (0 if self._movable else header.sh_addr)
        if self._movable:
            return self._descriptors.get(at)
        content = self._content(header)
        return int(struct.unpack_from(self._order + "Q", content, at)[0]) if at + 8 <= len(content) else None

    @cached_property
    def _descriptors(self) -> dict[int, int]:
        return {
            at: found.target
            for number, (name, _) in enumerate(self._headers)
            if name == ".opd"
            for at, found in self._relocations_of(number)
            if found.kind == _ADDRESS_64 and found.target is not None
        }

    def _relocations(self, code: Mapping[int, Section]) -> dict[int, Relocation]:
        # A relocation may be of half an instruction.
        return {
            self._addresses[number] + at - at % _WORD: found
            for number in code
            for at, found in self._relocations_of(number)
        }

    def _relocations_of(self, section: int) -> list[tuple[int, Relocation]]:
        """The relocations of a section by the offset in it."""
        found = []
        for _, header in self._headers:
            if header.sh_type != "SHT_RELA" or header.sh_info != section:
                continue
            for at, info, addend in struct.iter_unpack(self._order + "QQq", self._content(header)):
                symbol = self._symbols[info >> 32]
                target = None
                if symbol.section != _UNDEFINED and symbol.section < len(self._headers):
                    target = symbol.value + addend + self._addresses[symbol.section]
                number = info & 0xFFFFFFFF
                kind = _RELOCATIONS.get(number, f"relocation {number}")
                name = symbol.name or self._headers[min(symbol.section, len(self._headers) - 1)][0]
                found.append((at, Relocation(kind, name, target)))
        return found


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    kind: int
    section: int
    value: int


def _integer(text: str) -> int:
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


def _holds_code(header: Any) -> bool:
    return header.sh_type == "SHT_PROGBITS" and bool(header.sh_flags & SH_FLAGS.SHF_EXECINSTR)
