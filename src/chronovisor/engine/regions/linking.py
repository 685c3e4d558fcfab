"""From a region's object file to code that runs wherever it is copied to.

A region refers to nothing outside, and to what it has itself by distances. So linking it is to put its
sections next to each other, which the process that compiles does.
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from chronovisor.engine.native.code_space import ALIGNMENT

#: ELF for x86-64: a section that the program has in memory; and the kinds of relocations that put the
#: distance to an address in a field of 32 bits.
_SHF_ALLOC = 2
_DISTANCES = frozenset({2, 4})


def link(code: bytes, symbols: Iterable[str]) -> tuple[bytes, tuple[int, ...]]:
    """Return an object file's code and constants, and where symbols are in it."""
    with ELFFile(BytesIO(code)) as elf:
        whole, places = _laid_out(elf)
        for section in elf.iter_sections():
            if isinstance(section, RelocationSection) and section["sh_info"] in places:
                _relocate(elf, section, places, whole)
        (table,) = (one for one in elf.iter_sections() if isinstance(one, SymbolTableSection))
        defined = [one for one in table.iter_symbols() if one["st_shndx"] in places]
        found = {one.name: places[one["st_shndx"]] + one["st_value"] for one in defined}
        return bytes(whole), tuple(found[symbol] for symbol in symbols)


def _laid_out(elf: ELFFile) -> tuple[bytearray, dict[int, int]]:
    """The sections that the code needs, and where each is, by its number."""
    whole, places = bytearray(), {}
    for number, section in enumerate(elf.iter_sections()):
        if _is_needed(section):
            alignment = max(section["sh_addralign"], 1)
            assert alignment <= ALIGNMENT, f"section {section.name} is aligned to {alignment} bytes"
            whole += bytes(-len(whole) % alignment)
            places[number] = len(whole)
            whole += section.data()
    return whole, places


def _is_needed(section: Section) -> bool:
    return bool(section["sh_flags"] & _SHF_ALLOC) and section.name != ".eh_frame"


def _relocate(elf: ELFFile, section: RelocationSection, places: dict[int, int], whole: bytearray) -> None:
    symbols = elf.get_section(section["sh_link"])
    assert isinstance(symbols, SymbolTableSection)
    for one in section.iter_relocations():
        symbol, kind = symbols.get_symbol(one["r_info_sym"]), one["r_info_type"]
        target = places.get(symbol["st_shndx"])
        if target is None or kind not in _DISTANCES:
            raise AssertionError(f"a region refers to {symbol.name!r} by a relocation of the kind {kind}")
        field = places[section["sh_info"]] + one["r_offset"]
        value = target + symbol["st_value"] + one["r_addend"] - field
        whole[field : field + 4] = value.to_bytes(4, "little", signed=True)
