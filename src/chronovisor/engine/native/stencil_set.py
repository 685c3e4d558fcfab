"""From instructions to the stencils of a machine mode."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import NamedTuple

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection
from llvmlite import ir

from chronovisor.engine.native import compiler
from chronovisor.engine.native.encoding import Encoding, encoding
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.operations import is_native
from chronovisor.engine.native.pairs import Key
from chronovisor.engine.native.sets import everyday_keys, symbol
from chronovisor.engine.native.stencil_tables import (
    ANY_RECORD,
    ANY_VALUE,
    MOST_BYTES,
    Patch,
    Row,
    Source,
    Stencil,
    StencilSet,
)
from chronovisor.engine.native.stencil_variants import NoStencilError, Variant, variants
from chronovisor.engine.native.stencils import NEXT, OWN, SYNCHRONIZING, TAKEN, Hole, StencilLowering
from chronovisor.isa.values import Program

#: How many functions LLVM has at once.
_FEW_FUNCTIONS = 400

_SYMBOLS = {NEXT: Source.NEXT, TAKEN: Source.TAKEN, OWN: Source.OWN}
_SOURCES = {
    "gpr": Source.SMALL,
    "small": Source.SMALL,
    "byte": Source.WIDE,
    "number": Source.WIDE,
    "unsigned": Source.WIDE,
    "wide": Source.WIDE,
    "offset": Source.OFFSET,
    "position": Source.POSITION,
    "spent": Source.SPENT,
}

#: How many bytes numbers of these kinds have, and whether zeros extend them.
_BYTES = {"zero": (0, False), "byte": (1, False), "number": (4, False), "unsigned": (4, True)}

#: The relocations of x86-64 that are completed: how many bytes each has, for values and for distances.
_VALUES = {1: 8, 10: 4, 11: 4, 12: 2, 14: 1}
_DISTANCES = frozenset({2, 4})
#: The one that extends 32 bits with zeros, and that of 8 bits.
_ZERO_EXTENDED, _SHORT = 10, 14
#: Whose holes have 8 bits by choice.
_SHORT_HOLES = ("hole.gpr.", "hole.byte.")

#: Jumps: their last byte, the one before it if they are conditional, and the bytes of the distance. An even
#: condition is the opposite of the odd one behind it.
_JUMP, _CONDITIONAL, _CONDITIONS = 0xE9, 0x0F, range(0x80, 0x90)
_DISTANCE = 4
#: Those with a distance of 8 bits.
_SHORT_JUMPS = (0xEB, *range(0x70, 0x80))

#: What is rewritten in LLVM's assembly language, and what takes its place, if a hole would have more bytes
#: than it needs. Relocations of 8 bits complete such a hole.
_RELOC = ".reloc "
_BYTE = rf"\n\t{_RELOC}.-{{}}, R_X86_64_8, "
_GPR, _SMALL = r"(hole\.gpr[\w.]*(?:\+\d+)?)\(%r13\)", r"(hole\.byte[\w.]*(?:\+\d+)?)"
_REWRITTEN = [
    (re.compile(found, re.MULTILINE), replacement)
    for found, replacement in (
        # 64-bit numbers that have 32 bits.
        (r"movabsq(\s+\$hole\.(?:number|byte)\.)", r"movq\1"),
        # The sum of a number and a register.
        (
            rf"movq\s+\${_SMALL}, (%r\w\w)\n\taddq\s+{_GPR}, \2$",
            r"movq \3(%r13), \2\n\taddq $1, \2" + _BYTE.format(1) + r"\1",
        ),
        # An operation of a register and a number: first one with both in a byte.
        (
            rf"^(\t(?:cmp|add|and|or)q\s+)\${_SMALL}, {_GPR}$",
            r"\1$1, 1(%r13)" + _BYTE.format(1) + r"\2" + _BYTE.format(2) + r"\3",
        ),
        (rf"^(\t\w+q\s+\$hole[\w.]*, ){_GPR}$", rf"\t{_RELOC}.+3, R_X86_64_8, \2\n\g<1>1(%r13)"),
        # Accesses, to a register and at a distance.
        (rf"^([^$\n]*[\s,]){_GPR}([^$\n]*)$", r"\g<1>1(%r13)\3" + _BYTE.format(1) + r"\2"),
        (
            rf"^([^$\n]*[\s,]){_SMALL}\((%(?!rip)\w+)\)([^$\n]*)$",
            r"\g<1>1(\3)\4" + _BYTE.format(1) + r"\2",
        ),
    )
]


def _shorter(text: str) -> str:
    """The same in assembly language, but with short displacements and numbers where holes have such."""
    for found, replacement in _REWRITTEN:
        text = found.sub(replacement, text)
    return text


@dataclass
class Piece:
    """A stencil in the making."""

    code: bytes
    patches: list[Patch]
    taken: bool = False

    def fall_through(self) -> None:
        """Have the end of the code lead to the instruction behind without a jump, if it leads there.

        The same for the target of the instruction's jump, if nothing else is behind.
        """
        target = self._jump_at(len(self.code))
        if target == Source.NEXT:
            self._cut()
        elif self._jump_at(len(self.code) - 1 - _DISTANCE) == Source.NEXT and target is not None:
            # ``jcc next; jmp target``
            at = len(self.code) - 1 - 2 * _DISTANCE
            if self.code[at - 2] != _CONDITIONAL or self.code[at - 1] not in _CONDITIONS:
                return
            if self._may_jump_to(len(self.code) - 1 - _DISTANCE):
                return
            self._cut()
            self.code = self.code[: at - 1] + bytes([self.code[at - 1] ^ 1]) + self.code[at:]
            (last,) = (p for p in self.patches if p.at == at)
            last.source = target
        elif target == Source.TAKEN and self.code[-1 - _DISTANCE] == _JUMP:
            self._cut()
            self.taken = True

    def _jump_at(self, end: int) -> int | None:
        """The target of the jump whose last byte is before ``end``; None if no jump is there."""
        if end < 1 + _DISTANCE or self.code[end - 1 - _DISTANCE] not in (_JUMP, *_CONDITIONS):
            return None
        found = [p.source for p in self.patches if p.at == end - _DISTANCE and p.source >= Source.NEXT]
        return found[0] if found else None

    def _may_jump_to(self, place: int) -> bool:
        """Whether the code jumps to a place in it. Bytes that only look like such a jump count, too."""
        code, holes = self.code, {p.at for p in self.patches}
        for at, byte in enumerate(code):
            size = 1 if byte in _SHORT_JUMPS else _DISTANCE
            if size == 1 or byte == _JUMP or (byte in _CONDITIONS and code[at - 1] == _CONDITIONAL):
                behind = at + 1 + size
                distance = int.from_bytes(code[at + 1 : behind], "little", signed=True)
                if at + 1 not in holes and behind + distance == place:
                    return True
        return False

    def _cut(self) -> None:
        """Leave out the jump at the end."""
        self.code = self.code[: -1 - _DISTANCE]
        self.patches = [p for p in self.patches if p.at < len(self.code)]


def compile_stencils(mode: Mode) -> bytes:
    """All stencils of a machine mode."""
    made: list[tuple[Row, Piece]] = []
    module, rows = compiler.new_module("stencils"), dict[str, _Wanted]()
    for number, (key, near, layout, program, variant) in enumerate(_wanted(mode)):
        name = f"{symbol(key)}.{number}"
        low = StencilLowering(module, name, mode, variant)
        try:
            low.do(program, layout)
            low.finish()
        except NoStencilError:
            # What there is of the function is no function.
            module.globals.pop(name)
            continue
        place = ANY_RECORD if variant.place is None else variant.place
        value = ANY_VALUE if variant.number is None else variant.number
        rows[name] = _Wanted(Row(_key_numbers()[key], near, place, value), variant)
        if len(rows) >= _FEW_FUNCTIONS:
            made += _compiled(module, rows)
            module, rows = compiler.new_module("stencils"), {}
    return _encoded([*made, *_compiled(module, rows)])


@dataclass(frozen=True)
class _Wanted:
    """A stencil to be made."""

    row: Row
    variant: Variant

    def conditions(self, behind: int) -> Iterator[Patch]:
        """What is put behind the code, whose size this is, only to see which records the stencil is for."""
        for place, kind in self.variant.wide.items():
            if kind in _BYTES:
                size, unsigned = _BYTES[kind]
                yield Patch(source=Source.WIDE, number=place, size=size, unsigned=unsigned, at=behind)
        if self.variant.equal is not None:
            first, other = self.variant.equal
            yield Patch(Source.DIFFERENCE, first, other)


@cache
def _key_numbers() -> dict[Key, int]:
    return {key: number for number, key in enumerate(everyday_keys())}


def _wanted(mode: Mode) -> Iterator[tuple[Key, int, Encoding, Program, Variant]]:
    for key in everyday_keys():
        program = key[0].program(key[1], *mode)
        if key[0].mnemonic in SYNCHRONIZING or not is_native(program):
            continue
        far = encoding(program)
        layouts = [far] if far.target is None else [far, encoding(program, near=True)]
        for near, layout in enumerate(layouts):
            try:
                found = variants(key[0].mnemonic, layout)
            except NoStencilError:
                continue
            for variant in found:
                yield key, near, layout, program, variant


def _compiled(module: ir.Module, rows: dict[str, _Wanted]) -> Iterator[tuple[Row, Piece]]:
    """The stencils of a module that can be completed, by their functions' names."""
    source = _shorter(compiler.assembly(module, compiler.OF_STENCILS))
    with ELFFile(BytesIO(compiler.assembled(source, compiler.OF_STENCILS))) as elf:
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        functions = {one.name: one for one in table.iter_symbols() if one.name in rows}
        text = elf.get_section(functions[next(iter(rows))]["st_shndx"]) if rows else None
        relocations = [] if text is None else list(_relocations(elf, text, table))
        holes = {one.at: _patch(one) for one in relocations}
        # LLVM drops a relocation that it is too late for, and says nothing.
        short = [one for one in relocations if one.kind == _SHORT and one.name.startswith(_SHORT_HOLES)]
        if len(short) != source.count(_RELOC):
            raise ValueError(f"{source.count(_RELOC)} short holes became {len(short)}")
        for name, wanted in rows.items():
            assert text is not None
            piece = _piece(text.data(), functions[name]["st_value"], functions[name]["st_size"], holes)
            if piece is not None and len(piece.code) <= MOST_BYTES:
                piece.fall_through()
                piece.patches += wanted.conditions(len(piece.code))
                yield wanted.row, piece


class _Relocation(NamedTuple):
    """What the linker would put at a place: a symbol's value and an addend."""

    at: int
    name: str
    kind: int
    addend: int


def _relocations(elf: ELFFile, text: Section, table: SymbolTableSection) -> Iterator[_Relocation]:
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection) and elf.get_section(section["sh_info"]).name == text.name:
            for one in section.iter_relocations():
                name = table.get_symbol(one["r_info_sym"]).name
                yield _Relocation(one["r_offset"], name, one["r_info_type"], one["r_addend"])


def _patch(relocation: _Relocation) -> Patch | None:
    """What completes the code instead; None if nothing does."""
    _, name, kind, addend = relocation
    if name in _SYMBOLS:
        if kind not in _DISTANCES:
            return None
        return Patch(source=_SYMBOLS[name], size=_DISTANCE, base=addend)
    hole = Hole.named(name)
    if hole is None or kind not in _VALUES:
        return None
    return Patch(
        source=_SOURCES[hole.kind],
        number=hole.place,
        shift=hole.shift,
        size=_VALUES[kind],
        unsigned=kind == _ZERO_EXTENDED,
        base=hole.base + addend,
    )


def _piece(text: bytes, begin: int, size: int, holes: dict[int, Patch | None]) -> Piece | None:
    found = {at: patch for at, patch in holes.items() if begin <= at < begin + size}
    patches = []
    for at, patch in found.items():
        if patch is None:
            return None
        moved = Patch.from_buffer_copy(patch)
        moved.at = at - begin
        patches.append(moved)
    return Piece(text[begin : begin + size], patches)


def _encoded(made: Iterable[tuple[Row, Piece]]) -> bytes:
    rows: list[Row] = []
    stencils: list[Stencil] = []
    patches: list[Patch] = []
    code = bytearray()
    for row, piece in made:
        if rows and bytes(rows[-1]) == bytes(row):
            stencils[-1].last = 0
        rows.append(row)
        counts = len(piece.code), len(piece.patches)
        stencils.append(Stencil(len(code), len(patches), *counts, last=1, taken=piece.taken))
        patches += piece.patches
        # Eight bytes at a time are copied.
        code += piece.code + bytes(-len(piece.code) % 8)
    return StencilSet(
        (Row * len(rows))(*rows),
        (Stencil * len(stencils))(*stencils),
        (Patch * len(patches))(*patches),
        (ctypes.c_uint8 * len(code)).from_buffer(code),
    ).encode()
