"""ELF files made to order: right ones, and ones that are wrong in one place."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from chronovisor.isa.assembly import assemble

ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_PPC, EM_PPC64, EM_X86_64 = 20, 21, 62
R, W, X = 4, 2, 1

POWER_OFF = """
    lis r3,0; ori r3,r3,0xf000
    lis r4,block@h; ori r4,r4,block@l
    sc 1
    b .
block: .byte 0,0,0x20,2, 0,0,0,2, 0,0,0,1
    .space 12
"""
"""RTAS power-off: its block is big-endian in either endianness, and so made of bytes."""


@dataclass
class Part:
    """A program header and what it loads."""

    data: bytes
    paddr: int
    vaddr: int | None = None
    memsz: int | None = None
    flags: int = R | W | X
    offset: int | None = None
    type: int = 1


@dataclass
class Elf:
    """An ELF file; every field may be made wrong."""

    parts: list[Part]
    entry: int
    little: bool = True
    machine: int = EM_PPC64
    type: int = ET_EXEC
    flags: int = 0
    elf_class: int = 2
    data: int | None = None
    sections: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Address and size by name; without any there are no section headers."""

    def build(self) -> bytes:
        e = "<" if self.little else ">"
        offset = 64 + 56 * len(self.parts)
        headers, body = b"", b""
        for part in self.parts:
            at = offset + len(body) if part.offset is None else part.offset
            vaddr = part.paddr if part.vaddr is None else part.vaddr
            memsz = len(part.data) if part.memsz is None else part.memsz
            headers += struct.pack(
                e + "IIQQQQQQ", part.type, part.flags, at, vaddr, part.paddr, len(part.data), memsz, 1
            )
            body += part.data
        names = "".join(f"{name}\0" for name in ("", *self.sections, ".shstrtab")).encode()
        table = b""
        for name, (addr, size) in self.sections.items():
            at = names.index(name.encode() + b"\0")
            table += struct.pack(e + "IIQQQQIIQQ", at, 1, 2, addr, offset, size, 0, 0, 1, 0)
        at = names.index(b".shstrtab")
        named = struct.pack(e + "IIQQQQIIQQ", at, 3, 0, 0, offset + len(body), len(names), 0, 0, 1, 0)
        extra = names + bytes(64) + table + named if self.sections else b""
        sections_at = offset + len(body) + len(names) if self.sections else 0
        count = len(self.sections) + 2 if self.sections else 0
        order = self.data if self.data is not None else (1 if self.little else 2)
        ident = b"\x7fELF" + bytes([self.elf_class, order, 1, 0]) + bytes(8)
        header = struct.pack(
            e + "HHIQQQIHHHHHH",
            *(self.type, self.machine, 1, self.entry, 64 if self.parts else 0, sections_at, self.flags),
            *(64, 56, len(self.parts), 64, count, max(count - 1, 0)),
        )
        return ident + header + headers + body + extra


def program(text: str, little: bool = True, origin: int = 0x10000) -> bytes:
    """An ELF file that runs this assembly text from `origin` on; it has 64 KiB of zeros behind it."""
    code = assemble(text, origin, little)
    return Elf([Part(code, origin, memsz=len(code) + 0x10000)], origin, little).build()
