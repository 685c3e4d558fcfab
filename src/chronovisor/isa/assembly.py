"""Assembly text to instruction words and back, from the declarations of the instructions.

The text is what Power assemblers take: one statement a line (or several separated by `;`), labels with a
colon, comments from `#`, registers as `r3` and `cr1` or plain numbers, branch targets as addresses (`.` is
the statement's own), extended mnemonics (``chronovisor.isa.extended_mnemonics``), special purpose registers
by their name, `name = value` for a symbol, and these directives: `.byte`, `.short`, `.long`, `.quad` (values
separated by commas), `.ascii` and `.asciz` (a string), `.balign N`, `.space N`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from chronovisor.isa.decode import decode
from chronovisor.isa.expressions import Half, evaluate
from chronovisor.isa.extended_mnemonics import extended_mnemonics
from chronovisor.isa.forms import FIELDS, Field, Kind
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE


class AssemblyError(ValueError):
    """Text that cannot be assembled; the message begins with the number of its line."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


@dataclass(frozen=True, slots=True)
class _Spelling:
    """An instruction with the endings that its mnemonic has here."""

    instruction: Instruction
    endings: dict[str, int]


_ENDINGS = {"OE": "o", "Rc": ".", "Rc21": ".", "LK": "l", "AA": "a"}

#: Branch targets: an address in the text, in the word a distance unless AA is set.
_TARGETS = ("LI", "BD")

#: Hints and choices that are zero if the text leaves them out at the end.
_LEFT_OUT = frozenset({"BH", "EH", "LEV", "L1", "L2", "L14", "TH", "IH", "R", "WC", "CY", "RIC", "PRS"})

_SPLIT_OPERANDS = re.compile(r",(?![^(]*\))")
_MEMORY = re.compile(r"^(.*)\(([^()]+)\)$")
_REGISTER = re.compile(r"^(cr|r|f|vs|v)(\d+)$")
_STATEMENT = re.compile(r'((?:"(?:\\.|[^"\\])*"|[^;#"])+)|#.*')
_FIELD = re.compile(r"[A-Z][A-Za-z0-9]*")
_LABEL = re.compile(r"^\s*([A-Za-z_]\w*)\s*:")
_ASSIGNMENT = re.compile(r"^([A-Za-z_]\w*)\s*=(?!=)(.*)$")

_REGISTER_KINDS = {"r": Kind.GPR, "cr": Kind.CR_FIELD, "f": Kind.FPR, "v": Kind.VR, "vs": Kind.VSR}
_PREFIXES = {kind: prefix for prefix, kind in _REGISTER_KINDS.items()}
_CONDITION_SYMBOLS = {"lt": 0, "gt": 1, "eq": 2, "so": 3, "un": 3} | {f"cr{n}": n for n in range(8)}

_SIZES = {".byte": 1, ".short": 2, ".long": 4, ".quad": 8}

#: More than a text can want: a typing error must not fill the memory.
_MOST_SPACE = 1 << 30


@cache
def _spellings() -> dict[str, _Spelling]:
    """Mnemonic, endings included -> what it names."""
    table: dict[str, _Spelling] = {}
    for declared in (*INSTRUCTIONS, *UNIMPLEMENTED):
        for chosen in product((0, 1), repeat=len(declared.options)):
            endings = dict(zip(declared.options, chosen, strict=True))
            name = declared.mnemonic + "".join(_ENDINGS[o] for o, set_ in endings.items() if set_)
            if name in table:
                raise ValueError(f"{table[name].instruction} and {declared} are both written {name}")
            table[name] = _Spelling(declared, endings)
    return table


def _words(statement: str) -> tuple[str, str]:
    """The first word of a statement, and the rest."""
    first, *rest = statement.split(None, 1)
    return first, rest[0] if rest else ""


def _operands(syntax: str) -> list[str]:
    return [part.strip() for part in _SPLIT_OPERANDS.split(syntax)] if syntax.strip() else []


# Assembling


def _encode(text: str, symbols: Mapping[str, int], here: int) -> int:
    """The word of one instruction that stands at address ``here``."""
    mnemonic, rest = _words(text)
    spelling = _spellings().get(mnemonic)
    if spelling is None:
        raise ValueError(f"{mnemonic!r} is not a known instruction")
    syntax = spelling.instruction.syntax
    expected, given = _operands(syntax), _operands(rest)
    while len(given) < len(expected) and expected[-1] in _LEFT_OUT:
        expected.pop()
    if len(given) != len(expected):
        raise ValueError(f"{mnemonic} takes {syntax or 'no operands'}, not {rest or 'nothing'}")
    numbers = dict(spelling.endings)
    for template, operand in zip(expected, given, strict=True):
        names, texts = [template], [operand]
        if memory := _MEMORY.match(template):
            parts = _MEMORY.match(operand)
            if parts is None:
                raise ValueError(f"{operand!r} does not have the form {template}")
            names, texts = [memory[1], memory[2]], [parts[1] or "0", parts[2]]
        for name, written in zip(names, texts, strict=True):
            numbers[name] = _number(spelling, FIELDS[name], written.strip(), symbols, here)
    return spelling.instruction.encode(**numbers)


def _number(spelling: _Spelling, field: Field, text: str, symbols: Mapping[str, int], here: int) -> int:
    """What goes into a field: a register's number, or an expression's value."""
    register = _REGISTER.match(text)
    if register and field.kind is _REGISTER_KINDS[register[1]]:
        return int(register[2])
    if register and not (register[1] == "cr" and field.kind is Kind.CR_BIT):
        raise ValueError(f"{text} cannot stand for {field.name}")
    if field.kind in (Kind.CR_BIT, Kind.CR_FIELD):
        symbols = {**_CONDITION_SYMBOLS, **symbols}
    if field.name in ("SPR", "TBR") and (number := _spr(spelling.instruction.mnemonic, text)) is not None:
        return number
    number = evaluate(text, symbols, here)
    if isinstance(number, Half) and field.width == 16 and field.kind is Kind.SIGNED:
        return number - (0x10000 if number >> 15 else 0)
    if field.name in _TARGETS and not spelling.endings.get("AA"):
        return number - here
    return number


def _spr(mnemonic: str, name: str) -> int | None:
    """The number by which a move reads or writes the special purpose register of this name."""
    table = SPR_WRITE if mnemonic.startswith("mt") else SPR_READ
    return next((number for number, register in table.items() if register.name == name.upper()), None)


@dataclass(frozen=True, slots=True)
class _Item:
    """``size`` bytes at an address: known ones, or what an instruction or a value's text will make."""

    line: int
    address: int
    size: int
    content: bytes | str
    instruction: bool = False


class Assembler:
    """Assembles one text; :attr:`symbols` has its labels' addresses."""

    def __init__(self, origin: int = 0, little: bool = False) -> None:
        self.symbols: dict[str, int] = {}
        self._here = origin
        self._order: Literal["little", "big"] = "little" if little else "big"
        self._items: list[_Item] = []
        self._line = 0

    def assemble(self, text: str) -> bytes:
        """The text's bytes; AssemblyError if the text is wrong."""
        try:
            for self._line, line in enumerate(text.splitlines(), 1):
                for found in _STATEMENT.finditer(line):
                    self._statement(found[1] or "")
            code = bytearray()
            for item in self._items:
                self._line = item.line
                code += self._content(item)
        except (ValueError, SyntaxError) as error:
            raise AssemblyError(self._line, str(error)) from None
        return bytes(code)

    def _statement(self, text: str) -> None:
        while label := _LABEL.match(text):
            self._define(label[1], self._here)
            text = text[label.end() :]
        text = text.strip()
        if not text:
            return
        assignment = _ASSIGNMENT.match(text)
        if assignment:
            self._define(assignment[1], evaluate(assignment[2], self.symbols, self._here))
        elif text.startswith("."):
            self._directive(*_words(text))
        else:
            for line in _expanded(text):
                self._add(4, line, instruction=True)

    def _define(self, name: str, value: int) -> None:
        if name in self.symbols or _REGISTER.match(name):
            raise ValueError(f"{name!r} means something already")
        self.symbols[name] = value

    def _add(self, size: int, content: bytes | str, instruction: bool = False) -> None:
        self._items.append(_Item(self._line, self._here, size, content, instruction))
        self._here += size

    def _directive(self, name: str, rest: str) -> None:
        if name in _SIZES:
            for text in _operands(rest):
                self._add(_SIZES[name], text)
        elif name in (".ascii", ".asciz"):
            string = ast.literal_eval(rest)
            if not isinstance(string, str):
                raise ValueError(f"{rest!r} is not a string")
            content = string.encode() + (b"\0" if name == ".asciz" else b"")
            self._add(len(content), content)
        elif name in (".balign", ".space"):
            count = evaluate(rest, self.symbols, self._here)
            if not (name == ".balign") <= count <= _MOST_SPACE:
                raise ValueError(f"{name} cannot have {count}")
            filling = bytes(-self._here % count if name == ".balign" else count)
            self._add(len(filling), filling)
        else:
            raise ValueError(f"{name!r} is not a known directive")

    def _content(self, item: _Item) -> bytes:
        if isinstance(item.content, bytes):
            return item.content
        if item.instruction:
            number = _encode(item.content, self.symbols, item.address)
        else:
            number = evaluate(item.content, self.symbols, item.address)
        bits = 8 * item.size
        if not -(1 << (bits - 1)) <= number < 1 << bits:
            raise ValueError(f"{item.content} is {number:#x}, which does not fit in {item.size} bytes")
        return (number & ((1 << bits) - 1)).to_bytes(item.size, self._order)


def assemble(text: str, origin: int = 0, little: bool = False) -> bytes:
    """The bytes of ``text`` placed at address ``origin``; AssemblyError names the line that is wrong."""
    return Assembler(origin, little).assemble(text)


def _expanded(text: str) -> Iterator[str]:
    """The statement's instructions, extended mnemonics written out."""
    mnemonic, rest = _words(text)
    operands = _operands(rest)
    expansion = extended_mnemonics().get((mnemonic, len(operands)))
    if expansion is None:
        yield text
        return
    for line in expansion.fill(operands):
        if _words(line)[0] == mnemonic:
            yield line
        else:
            yield from _expanded(line)


# Disassembling


def disassemble(word: int) -> str:
    """The text that assembles to ``word`` at any address; `.long` if no instruction has these bits."""
    declared = decode(word)
    if declared is None:
        return f".long {word:#010x}"
    if declared in RESERVED:
        return f".long {word:#010x} # {declared.mnemonic}"
    numbers = {field.name: field.decode(word) for field in declared.fields}
    if declared.encode(**numbers) != word:
        return f".long {word:#010x} # {declared.mnemonic} with reserved bits"
    endings = "".join(_ENDINGS[option] for option in declared.options if numbers[option])
    relative = not numbers.get("AA")

    def operand(found: re.Match[str]) -> str:
        name = found[0]
        kind, number = FIELDS[name].kind, numbers[name]
        if kind in _PREFIXES:
            return f"{_PREFIXES[kind]}{number}"
        if name in _TARGETS and relative:
            return f".{number:+#x}"
        return str(number)

    return f"{declared.mnemonic}{endings} {_FIELD.sub(operand, declared.syntax)}".strip()
