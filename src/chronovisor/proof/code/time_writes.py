"""Finds the writes of time registers in machine code, and lists the code around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

from chronovisor.isa.assembly import disassemble
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS
from chronovisor.isa.registers import REGISTERS, SPR_READ, SPR_WRITE
from chronovisor.proof.code.image import CodeImage, Section

WATCHED: Final = ("TBU40", "TBU", "TBL", "DEC", "HDEC")
"""The registers whose writes are found."""
_REGISTERS_EACH = 32
_RELATIVE = re.compile(r"\.([+-]0x[0-9a-f]+)")
_WORD = 4


@dataclass(frozen=True, slots=True)
class TimeWrite:
    """An instruction that writes a time register."""

    address: int
    register: str
    source: int
    """The general purpose register that the instruction reads."""


@dataclass(frozen=True, slots=True)
class Line:
    """An instruction, as a listing shows it."""

    address: int
    word: int
    text: str


@cache
def _written() -> dict[int, tuple[str, int]]:
    """Instruction word -> the time register that it writes, and the general register that it reads."""
    mtspr = next(declared for declared in INSTRUCTIONS if declared.mnemonic == "mtspr")
    return {
        mtspr.encode(SPR=number, RS=source): (name, source)
        for name in WATCHED
        if (number := REGISTERS[name].spr_write) is not None
        for source in range(_REGISTERS_EACH)
    }


@cache
def _pattern(little: bool) -> re.Pattern[bytes]:
    order: Literal["little", "big"] = "little" if little else "big"
    words = (re.escape(word.to_bytes(_WORD, order)) for word in _written())
    return re.compile(b"|".join(words), re.DOTALL)


def time_writes(image: CodeImage) -> list[TimeWrite]:
    """Return every write of a watched register, by rising address."""
    return [
        TimeWrite(address, *_written()[word])
        for section in image.sections
        for address, word in _words_found(section, image.little)
    ]


def _words_found(section: Section, little: bool) -> Iterator[tuple[int, int]]:
    pattern, at = _pattern(little), 0
    while found := pattern.search(section.data, at):
        at = found.start()
        if at % _WORD == 0:
            yield section.address + at, int.from_bytes(found[0], "little" if little else "big")
        # The bytes that were found may span two instructions.
        at += 1


def listing(image: CodeImage, addresses: Iterable[int]) -> list[Line]:
    """Return the instructions at these addresses, with the file's names for the addresses in them."""
    return [
        Line(address, word, _text(image, address, word))
        for address in addresses
        if (word := image.word(address)) is not None
    ]


def around(image: CodeImage, address: int, before: int = 6, after: int = 6) -> list[Line]:
    """Return the instructions around an address, in the same section."""
    first, last = address - _WORD * before, address + _WORD * after
    section = image.section_at(address)
    return listing(image, [at for at in range(first, last + 1, _WORD) if section and at in section])


def _text(image: CodeImage, address: int, word: int) -> str:
    text = disassemble(word)
    relocation = image.relocations.get(address)
    if relocation is not None:
        return f"{text}  # {relocation.symbol} ({relocation.kind})"
    found = decode(word)
    if found is not None and found.mnemonic in ("mtspr", "mfspr"):
        number = FIELDS["SPR"].decode(word)
        register = (SPR_WRITE if found.mnemonic == "mtspr" else SPR_READ).get(number)
        if register is not None:
            general = FIELDS["RS"].decode(word)
            if found.mnemonic == "mtspr":
                return f"mtspr {register.name},r{general}"
            return f"mfspr r{general},{register.name}"
    return _RELATIVE.sub(lambda jump: image.place(address + int(jump[1], 16)), text)
