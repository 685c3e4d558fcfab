"""Where the machine code of regions is: side by side in large pages of the machine.

A region's object file refers to nothing outside, so linking it is to put its sections next to each other.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from collections.abc import Iterable
from functools import cache
from io import BytesIO

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from chronovisor.engine.statistics import REGIONS

#: The size of a piece of the space, and what it is aligned to: the machine's large pages.
_PIECE = 1 << 24
_LARGE_PAGE = 1 << 21
_LEAST_ALIGNMENT = 16
#: ELF for x86-64: a section that the program has in memory; a field of 64 bits for an address; fields of 32
#: bits for the distance from the field to an address.
_SHF_ALLOC = 2
_ADDRESS, _DISTANCES = 1, frozenset({2, 4})


class CodeSpace:
    """Code of regions, which stays as long as the process."""

    def __init__(self) -> None:
        self._pieces: list[mmap.mmap] = []
        self._begin = self._next = self._end = 0
        self._changing = threading.Lock()

    def load(self, code: bytes, symbols: Iterable[str]) -> list[int]:
        """Link an object file; the addresses of symbols in it."""
        begin = time.monotonic()
        with ELFFile(BytesIO(code)) as elf, self._changing:
            places = self._put(elf)
            for section in elf.iter_sections():
                if isinstance(section, RelocationSection) and section["sh_info"] in places:
                    self._relocate(elf, section, places)
            (table,) = (one for one in elf.iter_sections() if isinstance(one, SymbolTableSection))
            found = {
                s.name: places[s["st_shndx"]] + s["st_value"]
                for s in table.iter_symbols()
                if s.name in symbols
            }
        REGIONS.add_linked(len(code), time.monotonic() - begin)
        return [found[symbol] for symbol in symbols]

    def _put(self, elf: ELFFile) -> dict[int, int]:
        """Copy the sections; the address of each by its number."""
        wanted = {n: one for n, one in enumerate(elf.iter_sections()) if _is_needed(one)}
        size = sum(one["sh_size"] + max(one["sh_addralign"], _LEAST_ALIGNMENT) for one in wanted.values())
        if size > self._end - self._next:
            self._add_piece(size)
        places = {}
        for number, section in wanted.items():
            at = -(-self._next // (align := max(section["sh_addralign"], _LEAST_ALIGNMENT))) * align
            content = section.data()
            ctypes.memmove(at, content, len(content))
            places[number] = at
            self._next = at + len(content)
        return places

    def _add_piece(self, least: int) -> None:
        size = max(_PIECE, -(-least // _LARGE_PAGE) * _LARGE_PAGE)
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        piece = mmap.mmap(-1, size + _LARGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection)
        piece.madvise(mmap.MADV_HUGEPAGE)
        self._pieces.append(piece)
        first = ctypes.addressof(ctypes.c_char.from_buffer(piece))
        self._next = -(-first // _LARGE_PAGE) * _LARGE_PAGE
        self._end = self._next + size

    def _relocate(self, elf: ELFFile, section: RelocationSection, places: dict[int, int]) -> None:
        symbols = elf.get_section(section["sh_link"])
        assert isinstance(symbols, SymbolTableSection)
        for one in section.iter_relocations():
            symbol, kind = symbols.get_symbol(one["r_info_sym"]), one["r_info_type"]
            target = places.get(symbol["st_shndx"])
            if target is None or kind not in {_ADDRESS, *_DISTANCES}:
                raise AssertionError(
                    f"code of a region refers to {symbol.name!r} outside, by a relocation of kind {kind}"
                )
            field, value = (
                places[section["sh_info"]] + one["r_offset"],
                target + symbol["st_value"] + one["r_addend"],
            )
            if kind == _ADDRESS:
                ctypes.c_uint64.from_address(field).value = value
            else:
                ctypes.c_int32.from_address(field).value = value - field


def _is_needed(section: Section) -> bool:
    return bool(section["sh_flags"] & _SHF_ALLOC and section["sh_size"]) and section.name != ".eh_frame"


@cache
def code_space() -> CodeSpace:
    """The process's one."""
    return CodeSpace()
