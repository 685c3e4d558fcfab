"""Instruction fields and forms (Power ISA 3.0B Book I 1.6).

A field is declared once, by the bits that it occupies (bit 0 is the most significant of the word);
decoding, encoding, assembly and disassembly all read that declaration.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a field's number stands for, and so when it is known."""

    GPR = "gpr"  # a general purpose register's number
    FPR = "fpr"  # a floating-point register's number
    VR = "vr"  # a vector register's number
    VSR = "vsr"  # a vector-scalar register's number
    CR_FIELD = "cr field"  # a condition register field's number
    CR_BIT = "cr bit"  # a condition register bit's number
    SIGNED = "signed"  # a number, sign-extended
    UNSIGNED = "unsigned"  # a number
    STATIC = "static"  # selects among meanings: known when an instruction is decoded


@dataclass(frozen=True, slots=True)
class Field:
    """A field: pieces of (first bit, last bit), most significant first, then ``shift`` zero bits."""

    name: str
    pieces: tuple[tuple[int, int], ...]
    kind: Kind
    shift: int = 0

    @property
    def width(self) -> int:
        """Bits held in the instruction."""
        return sum(last - first + 1 for first, last in self.pieces)

    def decode(self, word: int) -> int:
        """The field's number in an instruction word, sign-extended if it is signed."""
        number = 0
        for first, last in self.pieces:
            size = last - first + 1
            number = (number << size) | ((word >> (31 - last)) & ((1 << size) - 1))
        if self.kind is Kind.SIGNED and number >> (self.width - 1):
            number -= 1 << self.width
        return number << self.shift

    def encode(self, number: int) -> int:
        """The instruction bits that hold ``number``; ValueError if it does not fit."""
        if self.kind is Kind.SIGNED:
            low, high = -(1 << (self.width - 1)), (1 << (self.width - 1)) - 1
        else:
            low, high = 0, (1 << self.width) - 1
        scaled = number >> self.shift
        if scaled << self.shift != number or not low <= scaled <= high:
            step = f" in steps of {1 << self.shift}" if self.shift else ""
            raise ValueError(
                f"{self.name} is {number}, not in {low << self.shift}..{high << self.shift}{step}"
            )
        word = 0
        for first, last in reversed(self.pieces):
            size = last - first + 1
            word |= (scaled & ((1 << size) - 1)) << (31 - last)
            scaled >>= size
        return word


def _field(name: str, kind: Kind, *pieces: tuple[int, int], shift: int = 0) -> Field:
    return Field(name, pieces, kind, shift)


#: Every field by its name in the book. A field that the book splits has several pieces.
FIELDS: dict[str, Field] = {
    f.name: f
    for f in (
        _field("RT", Kind.GPR, (6, 10)),
        _field("RS", Kind.GPR, (6, 10)),
        _field("RA", Kind.GPR, (11, 15)),
        _field("RB", Kind.GPR, (16, 20)),
        _field("RC", Kind.GPR, (21, 25)),
        _field("FRT", Kind.FPR, (6, 10)),
        _field("FRS", Kind.FPR, (6, 10)),
        _field("FRTP", Kind.FPR, (6, 10)),
        _field("FRSP", Kind.FPR, (6, 10)),
        _field("FRA", Kind.FPR, (11, 15)),
        _field("FRB", Kind.FPR, (16, 20)),
        _field("FRC", Kind.FPR, (21, 25)),
        _field("VRT", Kind.VR, (6, 10)),
        _field("VRS", Kind.VR, (6, 10)),
        _field("VRA", Kind.VR, (11, 15)),
        _field("VRB", Kind.VR, (16, 20)),
        _field("VRC", Kind.VR, (21, 25)),
        _field("XT", Kind.VSR, (31, 31), (6, 10)),
        _field("XS", Kind.VSR, (31, 31), (6, 10)),
        _field("XT28", Kind.VSR, (28, 28), (6, 10)),
        _field("XS28", Kind.VSR, (28, 28), (6, 10)),
        _field("XA", Kind.VSR, (29, 29), (11, 15)),
        _field("XB", Kind.VSR, (30, 30), (16, 20)),
        _field("XC", Kind.VSR, (28, 28), (21, 25)),
        _field("BF", Kind.CR_FIELD, (6, 8)),
        _field("BFA", Kind.CR_FIELD, (11, 13)),
        _field("BT", Kind.CR_BIT, (6, 10)),
        _field("BA", Kind.CR_BIT, (11, 15)),
        _field("BB", Kind.CR_BIT, (16, 20)),
        _field("BC", Kind.CR_BIT, (21, 25)),
        _field("BI", Kind.CR_BIT, (11, 15)),
        _field("SI", Kind.SIGNED, (16, 31)),
        _field("UI", Kind.UNSIGNED, (16, 31)),
        _field("D", Kind.SIGNED, (16, 31)),
        _field("DS", Kind.SIGNED, (16, 29), shift=2),
        _field("DQ", Kind.SIGNED, (16, 27), shift=4),
        _field("D16", Kind.SIGNED, (16, 25), (11, 15), (31, 31)),
        _field("LI", Kind.SIGNED, (6, 29), shift=2),
        _field("BD", Kind.SIGNED, (16, 29), shift=2),
        _field("SH", Kind.UNSIGNED, (16, 20)),
        _field("SH6", Kind.UNSIGNED, (30, 30), (16, 20)),
        _field("MB", Kind.UNSIGNED, (21, 25)),
        _field("ME", Kind.UNSIGNED, (26, 30)),
        _field("MB6", Kind.UNSIGNED, (26, 26), (21, 25)),
        _field("ME6", Kind.UNSIGNED, (26, 26), (21, 25)),
        _field("FXM", Kind.STATIC, (12, 19)),
        _field("ONE", Kind.STATIC, (11, 11)),  # unnamed in the book: mtocrf and mfocrf have it set
        _field("TO", Kind.STATIC, (6, 10)),
        _field("BO", Kind.STATIC, (6, 10)),
        _field("BH", Kind.STATIC, (19, 20)),
        _field("NB", Kind.STATIC, (16, 20)),
        _field("FC", Kind.STATIC, (16, 20)),
        _field("SPR", Kind.STATIC, (16, 20), (11, 15)),
        _field("TBR", Kind.STATIC, (16, 20), (11, 15)),
        _field("LEV", Kind.STATIC, (20, 26)),
        _field("L", Kind.STATIC, (10, 10)),
        _field("L1", Kind.STATIC, (15, 15)),
        _field("L2", Kind.STATIC, (9, 10)),
        _field("L14", Kind.STATIC, (14, 15)),
        _field("CY", Kind.STATIC, (21, 22)),
        _field("WC", Kind.STATIC, (9, 10)),
        _field("TH", Kind.STATIC, (6, 10)),
        _field("CT", Kind.STATIC, (7, 10)),
        _field("IH", Kind.STATIC, (8, 10)),
        _field("SR", Kind.STATIC, (12, 15)),
        _field("EH", Kind.STATIC, (31, 31)),
        _field("RIC", Kind.STATIC, (12, 13)),
        _field("PRS", Kind.STATIC, (14, 14)),
        _field("R", Kind.STATIC, (15, 15)),
        _field("AA", Kind.STATIC, (30, 30)),
        _field("LK", Kind.STATIC, (31, 31)),
        _field("OE", Kind.STATIC, (21, 21)),
        _field("Rc", Kind.STATIC, (31, 31)),
        _field("Rc21", Kind.STATIC, (21, 21)),
        # Of instructions that have no meaning yet. A number is the width or the first bit if the book has
        # several fields of one name.
        _field("SI5", Kind.SIGNED, (16, 20)),
        _field("SIM", Kind.SIGNED, (11, 15)),
        _field("TE", Kind.SIGNED, (11, 15)),
        _field("UIM2", Kind.UNSIGNED, (14, 15)),
        _field("UIM3", Kind.UNSIGNED, (13, 15)),
        _field("UIM4", Kind.UNSIGNED, (12, 15)),
        _field("UIM5", Kind.UNSIGNED, (11, 15)),
        _field("UIM6", Kind.UNSIGNED, (10, 15)),
        _field("IMM8", Kind.UNSIGNED, (13, 20)),
        _field("SHB", Kind.UNSIGNED, (22, 25)),
        _field("SHW", Kind.UNSIGNED, (22, 23)),
        _field("SH16", Kind.UNSIGNED, (16, 21)),
        _field("DM", Kind.UNSIGNED, (22, 23)),
        _field("DCM", Kind.UNSIGNED, (16, 21)),
        _field("DGM", Kind.UNSIGNED, (16, 21)),
        _field("DCMX", Kind.UNSIGNED, (9, 15)),
        _field("DCMX7", Kind.UNSIGNED, (25, 25), (29, 29), (11, 15)),
        _field("PS", Kind.UNSIGNED, (22, 22)),
        _field("ST", Kind.UNSIGNED, (16, 16)),
        _field("SIX", Kind.UNSIGNED, (17, 20)),
        _field("RMC", Kind.UNSIGNED, (21, 22)),
        _field("SP", Kind.UNSIGNED, (11, 12)),
        _field("S", Kind.UNSIGNED, (11, 11)),
        _field("RM", Kind.UNSIGNED, (19, 20)),
        _field("DRM", Kind.UNSIGNED, (18, 20)),
        _field("FLM", Kind.UNSIGNED, (7, 14)),
        _field("L6", Kind.UNSIGNED, (6, 6)),
        _field("W", Kind.UNSIGNED, (15, 15)),
        _field("U", Kind.UNSIGNED, (16, 19)),
        _field("BTF", Kind.UNSIGNED, (6, 10)),
        _field("R10", Kind.UNSIGNED, (10, 10)),
        _field("A6", Kind.UNSIGNED, (6, 6)),
        _field("STRM", Kind.UNSIGNED, (9, 10)),
        # Parts of extended opcodes that do not lie beside the rest of it.
        _field("EO", Kind.STATIC, (11, 15)),
        _field("RO", Kind.STATIC, (31, 31)),
        _field("EX", Kind.STATIC, (31, 31)),
        _field("XO26", Kind.STATIC, (26, 30)),
        _field("XO28", Kind.STATIC, (26, 28)),
        _field("BIT11", Kind.STATIC, (11, 12)),
        _field("BIT21", Kind.STATIC, (21, 21)),
    )
}


def without_hints(BO: int) -> int:
    """A branch's BO field with its reserved and hint bits (z, a, t) cleared (Book I 2.4)."""
    if BO & 0b10100 == 0b10100:  # branch always
        return 0b10100
    if BO & 0b10000:  # 1a01t, 1a00t: CTR decides
        return BO & 0b10010
    if BO & 0b00100:  # 011at, 001at: a condition bit decides
        return BO & 0b01100
    return BO & 0b01110  # 0100z and the like: both decide


@dataclass(frozen=True, slots=True)
class Form:
    """An instruction format: where its extended opcode is, or None if it has none.

    ``record`` names the field that the `.` of a mnemonic sets.
    """

    name: str
    extended_opcode: tuple[int, int] | None = None
    record: str = "Rc"


D = Form("D")
DS = Form("DS", (30, 31))
DQ = Form("DQ")
DX = Form("DX", (26, 30))
I = Form("I")
B = Form("B")
SC = Form("SC", (30, 30))
X = Form("X", (21, 30))
XL = Form("XL", (21, 30))
XFX = Form("XFX", (21, 30))
XO = Form("XO", (22, 30))
XS = Form("XS", (21, 29))
A = Form("A", (26, 30))
M = Form("M")
MD = Form("MD", (27, 29))
MDS = Form("MDS", (27, 30))
VA = Form("VA", (26, 31))
Z22 = Form("Z22", (22, 30))
Z23 = Form("Z23", (23, 30))
XFL = Form("XFL", (21, 30))
VX = Form("VX", (21, 31))
VXP = Form("VX", (23, 31))  # with PS before the extended opcode
VC = Form("VC", (22, 31), record="Rc21")
XX1 = Form("XX1", (21, 30))
XX1M = Form("XX1", (21, 24))  # with a reserved bit in the midst of the extended opcode
XX2 = Form("XX2", (21, 29))
XX2D = Form("XX2", (21, 24))  # with DCMX in the midst of the extended opcode
XX3 = Form("XX3", (21, 28))
XX3C = Form("XX3", (22, 28), record="Rc21")  # comparisons
XX3D = Form("XX3", (24, 28))  # with DM or SHW before the extended opcode
XX4 = Form("XX4", (26, 27))
DQX = Form("DQ", (29, 31))  # with an extended opcode
