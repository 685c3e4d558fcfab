"""What is not compared, and why: what the book leaves undefined, and where QEMU differs from the book.

Sections are those of the Power ISA, version 3.0B. An entry names the instructions that it is about (an empty
set means all), says in which cases, and gives the fields that are left out: whole fields, or bits of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import UNIMPLEMENTED, Instruction

from . import decimal_errata
from .case import BLOCK, MSR_PR, MSR_SF, Case, Outcome, describe, fields

_ALL = (1 << 64) - 1
_HIGH = (_ALL << 32) & _ALL
_CR0_COMPARED = 0xE000_0000


@dataclass(frozen=True, slots=True)
class Exemption:
    """Bits of the outcome that are not compared. `bits` gives, for a case, field -> bits."""

    mnemonics: frozenset[str]
    section: str
    reason: str
    bits: Callable[[Case, Instruction | None, Outcome], dict[str, int]]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _operand(instruction: Instruction, word: int, name: str) -> int:
    from chronovisor.isa.forms import FIELDS

    return FIELDS[name].decode(word)


def _target(case: Case, instruction: Instruction | None) -> str:
    assert instruction is not None
    return f"r{_operand(instruction, case.words[0], 'RT')}"


_RIGHT, _WHOLE_VECTOR = _ALL, (1 << 128) - 1


def _vector_target(case: Case, instruction: Instruction | None) -> str:
    """The vector-scalar register that the instruction sets, by its name in an outcome."""
    assert instruction is not None
    for name, first in (("XT", 0), ("VRT", 32)):
        if name in instruction.operands:
            return f"vs{first + _operand(instruction, case.words[0], name)}"
    return _target(case, instruction)


_ELEMENT_BYTES = {"b": 1, "h": 2, "w": 4, "d": 8}


def _beyond_end(case: Case, instruction: Instruction | None, place: str) -> dict[str, int]:
    """The target, if the element that begins at a byte does not lie within the register."""
    assert instruction is not None
    number = _operand(instruction, case.words[0], place)
    first = case.gpr[number] & 15 if place == "RA" else number
    letter = instruction.mnemonic.rstrip("lrx")[-1]
    is_beyond = first + _ELEMENT_BYTES[letter] > 16
    return {_vector_target(case, instruction): _WHOLE_VECTOR} if is_beyond else {}


def _rc(case: Case, instruction: Instruction | None) -> bool:
    return instruction is not None and "Rc" in instruction.options and bool(case.words[0] & 1)


def _high_half(case: Case, instruction: Instruction | None, _: Outcome) -> dict[str, int]:
    bits = {_target(case, instruction): _HIGH}
    if _rc(case, instruction) and case.msr & MSR_SF:
        bits["CR"] = _CR0_COMPARED
    return bits


def _divides_by_nothing(case: Case, instruction: Instruction | None, _: Outcome) -> dict[str, int]:
    assert instruction is not None
    word, name = case.words[0], instruction.mnemonic
    a, b = (case.gpr[_operand(instruction, word, field)] for field in ("RA", "RB"))
    width = 32 if "w" in name.removeprefix("div").removeprefix("mod") else 64
    unsigned = name.endswith("u")
    a, b = a & ((1 << width) - 1), b & ((1 << width) - 1)
    if not unsigned:
        a, b = (n - ((n >> (width - 1)) << width) for n in (a, b))
    if name.startswith("div") and "e" in name:
        a <<= width
    if b:
        quotient = abs(a) // abs(b)
        negative = (a < 0) != (b < 0)
        limit = (1 << width) - 1 if unsigned else (1 << (width - 1)) - (0 if negative else 1)
        if quotient <= limit:
            return {}
    bits = {_target(case, instruction): _ALL}
    if _rc(case, instruction):
        bits["CR"] = _CR0_COMPARED
    return bits


UNDEFINED: tuple[Exemption, ...] = (
    Exemption(
        _names("mtvsrd mtvsrwa mtvsrwz lxsdx lxsspx lxsiwzx lxsiwax lxsibzx lxsihzx lxsd lxssp"),
        "Book I 7.6.3",
        "the right half of the target is undefined: zeros on hardware, in QEMU what was there",
        lambda case, instruction, outcome: {_vector_target(case, instruction): _RIGHT},
    ),
    Exemption(
        _names("vextractub vextractuh vextractuw vextractd vinsertb vinserth vinsertw vinsertd"),
        "Book I 6.8.7, 6.8.8",
        "an element that would begin too near to the register's end is undefined",
        lambda case, instruction, outcome: _beyond_end(case, instruction, "UIM4"),
    ),
    Exemption(
        _names("xxextractuw xxinsertw"),
        "Book I 7.6.3",
        "a word that would begin behind byte 12 is undefined",
        lambda case, instruction, outcome: _beyond_end(case, instruction, "UIM4"),
    ),
    Exemption(
        _names("vextuhlx vextuwlx vextuhrx vextuwrx"),
        "Book I 6.14",
        "an element that would begin too near to the register's end is undefined",
        lambda case, instruction, outcome: _beyond_end(case, instruction, "RA"),
    ),
    Exemption(
        _names(decimal_errata.ALL),
        "Book I 6.17",
        "a number that is not a valid one leaves the target undefined, as does an integer of too many digits",
        lambda case, instruction, outcome: decimal_errata.undefined(case, outcome),
    ),
    Exemption(
        _names("divw divwu divwe divweu modsw moduw mulhw mulhwu"),
        "Book I 3.3.9",
        "RT0:31 are undefined, and with them CR0's comparison in 64-bit mode",
        _high_half,
    ),
    Exemption(
        _names("divw divwu divwe divweu modsw moduw divd divdu divde divdeu modsd modud"),
        "Book I 3.3.9",
        "a division by zero or whose quotient does not fit leaves RT and CR0's comparison undefined",
        _divides_by_nothing,
    ),
    Exemption(
        _names("mtspr"),
        "Book I 1.3.3, 3.2.2",
        "reserved bits of XER are kept or read as zero, as the processor likes",
        lambda case, instruction, outcome: (
            {"XER": ~0xE00C_007F & _ALL} if _spr(case, instruction) == 1 else {}
        ),
    ),
    Exemption(
        frozenset(),
        "Book III 6.5.3",
        "a data storage interrupt of dcbz or icbi sets DAR to the address of any byte of the block",
        lambda case, instruction, outcome: (
            {"DAR": 0x7F}
            if outcome.vector == 0x300 and any(word & 0xFC00_07BE == 0x7C00_07AC for word in case.words)
            else {}
        ),
    ),
    Exemption(
        frozenset(),
        "Book III 6.5.8",
        "an alignment interrupt leaves DSISR undefined",
        lambda case, instruction, outcome: {"DSISR": _ALL} if outcome.vector == 0x600 else {},
    ),
)
"""What the book itself leaves open."""


def _wide_quotient(case: Case, instruction: Instruction | None, _: Outcome) -> dict[str, int]:
    if not _divides_by_nothing(case, instruction, _):
        return {}
    bits = {"XER": 0xC008_0000}
    if _rc(case, instruction):
        bits["CR"] = 0xF000_0000
    return bits


def _spr(case: Case, instruction: Instruction | None) -> int:
    assert instruction is not None
    return _operand(instruction, case.words[0], "SPR")


def _whole(case: Case, outcome: Outcome) -> dict[str, int]:
    return dict.fromkeys(fields(outcome), _ALL)


def _refusals(case: Case, instruction: Instruction | None, outcome: Outcome) -> dict[str, int]:
    """The bits that are wrong in QEMU's value of a bounded form that does nothing."""
    assert instruction is not None
    register = (case.words[0] >> 21) & 31
    wrong = -(1 << 31) & _ALL
    if (case.words[0] >> 11) & 31 not in (24, 25, 28) or outcome.gpr[register] != wrong:
        return {}
    return {f"r{register}": wrong ^ (1 << 31 if instruction.mnemonic == "lwat" else 1 << 63)}


def _signs_differ(case: Case, instruction: Instruction | None, _: Outcome) -> dict[str, int]:
    """A signed minimum or maximum of words, one of them negative: the word in memory."""
    assert instruction is not None
    word = case.words[0]
    if (word >> 11) & 31 not in (5, 7):
        return {}
    at = (case.gpr[(word >> 16) & 31] & 0xFFFF_FFFF) - BLOCK
    operand = case.gpr[((word >> 21) + (1 if instruction.mnemonic == "lwat" else 0)) & 31]
    sign = case.memory[at + (3 if case.little else 0)] >> 7
    return {f"mem+{at & ~7:#x}": _ALL} if sign != (operand >> 31) & 1 else {}


def _far_powers(case: Case, instruction: Instruction | None) -> dict[str, int]:
    """The elements of the target that belong to numbers of a magnitude of 2 or more."""
    assert instruction is not None
    assert case.vectors is not None
    source = case.vectors.vsr[32 + _operand(instruction, case.words[0], "VRB")]
    lanes = [low for low in range(0, 128, 32) if 0x4000_0000 <= (source >> low) & 0x7FFF_FFFF <= 0x7F80_0000]
    return {_vector_target(case, instruction): sum(0xFFFF_FFFF << low for low in lanes)}


QEMU: tuple[Exemption, ...] = (
    Exemption(
        _names("bcdadd. bcdsub."),
        "Book I 6.17",
        "wrong digits are wrong whatever the signs are; QEMU takes them for equal ones if the signs differ",
        lambda case, instruction, outcome: decimal_errata.unseen_operands(case),
    ),
    Exemption(
        _names("bcdadd. bcdsub."),
        "Book I 6.17",
        "a sum of zeros is a positive zero, as on processors; QEMU's can be negative, less or greater than 0",
        lambda case, instruction, outcome: decimal_errata.zeros(case),
    ),
    Exemption(
        _names("bcds. bcdsr. bcdtrunc. bcdutrunc."),
        "Book I 6.17",
        "a number that overflowed is not zero, as on processors; QEMU looks at the digits that are left",
        lambda case, instruction, outcome: decimal_errata.nothing_left(case, outcome),
    ),
    Exemption(
        _names("bcdsr."),
        "Book I 6.17",
        "a shift by more than 31 digits leaves 0; QEMU shifts by 31, and rounds",
        lambda case, instruction, outcome: decimal_errata.shifted_far(case),
    ),
    Exemption(
        _names("bcdus."),
        "Book I 6.17",
        "no number without a sign is less than 0, and a shift of 0 never overflows; QEMU takes the "
        "last digit for a sign, and each shift by 32 digits or more for an overflow",
        lambda case, instruction, outcome: decimal_errata.compared_unsigned(case),
    ),
    Exemption(
        _names("bcdcpsgn. bcdsetsgn. bcdctsq."),
        "Book I 6.17",
        "the target may be the source; QEMU reads the source after it has written the target",
        lambda case, instruction, outcome: decimal_errata.replaced_source(case),
    ),
    Exemption(
        _names("bcdtrunc."),
        "Book I 6.17",
        "a length of 65,535 digits truncates nothing; QEMU keeps 15",
        lambda case, instruction, outcome: decimal_errata.truncated_to_most(case),
    ),
    Exemption(
        _names("bcdctn."),
        "Book I 6.17",
        "all 31 digits must be digits; QEMU looks at the seven that it takes",
        lambda case, instruction, outcome: decimal_errata.above_national(case),
    ),
    Exemption(
        _names("bcdctz."),
        "Book I 6.17",
        "all 31 digits must be digits; QEMU looks at the sixteen that it takes",
        lambda case, instruction, outcome: decimal_errata.above_zoned(case),
    ),
    Exemption(
        _names("vexptefp"),
        "Book I 6.10.5",
        "an estimate is off by a sixteenth at most; QEMU adds up a series for small numbers alone",
        # tests/isa/test_ieee.py has them all.
        lambda case, instruction, outcome: _far_powers(case, instruction),
    ),
    Exemption(
        _names("vrldmi"),
        "Book I 6.9.2",
        "bits outside the mask stay as they were in the target; QEMU clears them",
        lambda case, instruction, outcome: {_vector_target(case, instruction): _WHOLE_VECTOR},
    ),
    Exemption(
        frozenset(),
        "Book III 6.5.15",
        "a trace interrupt sets SRR1 bit 33, and 35 or 36 behind a load or store; QEMU leaves them 0",
        lambda case, instruction, outcome: {"SRR1": 0x5800_0000} if outcome.vector == 0xD00 else {},
    ),
    Exemption(
        _names("divde"),
        "Book I 3.3.9.1",
        "QEMU sees no overflow if the quotient's magnitude is in 2^63..2^64, which does not fit",
        _wide_quotient,
    ),
    Exemption(
        _names("mfspr mtspr"),
        "Book III 4.4.4",
        "an unprivileged number without a register raises hypervisor emulation assistance in problem state, "
        "0, 4, 5 and 6 in any; reflected as an illegal instruction, but as a privileged one by QEMU",
        lambda case, instruction, outcome: (
            {"SRR1": 0xC_0000} if not _spr(case, instruction) & 0x10 and outcome.vector == 0x700 else {}
        ),
    ),
    Exemption(
        _names("mtspr"),
        "Book III 4.4.1",
        "number 259 can only be read, so writing it does nothing in privileged state; QEMU: privileged",
        lambda case, instruction, outcome: _whole(case, outcome) if _spr(case, instruction) == 259 else {},
    ),
    Exemption(
        _names("mtspr"),
        "Book III 4.4.1",
        "DSISR and VRSAVE have 32 bits; QEMU keeps 64",
        lambda case, instruction, outcome: {"DSISR": _HIGH, "VRSAVE": _HIGH},
    ),
    Exemption(
        _names("lwat ldat"),
        "Book II 4.5.1",
        "if a bounded form does nothing, RT has only the size's top bit; QEMU returns -2^31 for either size",
        _refusals,
    ),
    Exemption(
        _names("lwat stwat"),
        "Book II 4.5.1",
        "signed minimum and maximum compare words as signed; QEMU, with one processor, as zero-extended",
        _signs_differ,
    ),
    Exemption(
        _names("lwat ldat stwat stdat"),
        "Book II 4.5",
        "an undefined function code sets DAR and DSISR; QEMU changes neither",
        lambda case, instruction, outcome: {"DAR": _ALL, "DSISR": _ALL} if outcome.vector == 0x300 else {},
    ),
    Exemption(
        _names("sync"),
        "Book III 5.9.3.3",
        "L=2 (ptesync) is privileged; QEMU lets problem state execute it",
        lambda case, instruction, outcome: (
            _whole(case, outcome) if (case.words[0] >> 21) & 3 == 2 and case.msr & MSR_PR else {}
        ),
    ),
    Exemption(
        _names("lmw stmw lswi lswx stswi stswx"),
        "Book III 6.5.8",
        "the alignment interrupt sets DAR to the effective address; QEMU's, for little-endian, leaves it",
        lambda case, instruction, outcome: {"DAR": _ALL} if outcome.vector == 0x600 else {},
    ),
    Exemption(
        _names("icbt"),
        "Book II 4.3.1",
        "a hint of every processor; QEMU knows it on embedded processors only and calls it illegal",
        # tests/isa/test_hints.py shows that the thread continues.
        lambda case, instruction, outcome: {"SRR0": case.address ^ case.end, "SRR1": 0xA_0000},
    ),
    Exemption(
        _names("dcbf"),
        "Book II 4.3.2",
        "L=3 (dcbflp) is valid; QEMU calls it illegal",
        lambda case, instruction, outcome: _whole(case, outcome) if (case.words[0] >> 22) & 1 else {},
    ),
    Exemption(
        _names("mfspr mtspr"),
        "Book III 4.4.1",
        "number 3 is DSCR for problem state; QEMU does not know it",
        lambda case, instruction, outcome: _whole(case, outcome) if _spr(case, instruction) == 3 else {},
    ),
)
"""What QEMU 7.2 answers otherwise than the book."""


NOT_DRAWN: tuple[tuple[str, str], ...] = (
    (
        "Book II 4.6.2",
        "stqcx. after lqarx: with one processor QEMU 7.2 never stores, as the book always allows",
    ),
    (
        "Book II 4.6.2",
        "a conditional store off its boundary: an alignment interrupt or undefined; QEMU just fails it",
    ),
    ("Book III 3.3.1", "rfid that clears ME: a guest cannot; QEMU lets it"),
    (
        "Book III 4.4.4",
        "hypervisor registers with HV=0: QEMU raises a privileged interrupt for some, nothing for others",
    ),
    (
        "Book III 5.7.3",
        "real-mode addresses without memory: QEMU's machine reads zeros, and no interrupt comes",
    ),
    ("Book III 6.5.15", "or x,x,x (a priority hint) while traced: QEMU gives way and forgets the trace"),
    ("Book III 6.5.9", "reserved bits of valid instructions: ignored by the book, illegal for many in QEMU"),
)
"""What cannot be compared at all: the section, and why no case is drawn."""


def _left_out(case: Case, expected: Outcome) -> Iterator[tuple[str, int]]:
    """The fields of a case that are not compared, and which bits of them."""
    instruction = decode(case.words[0]) if len(case.words) == 1 else None
    for exemption in (*UNDEFINED, *QEMU):
        if exemption.mnemonics and (instruction is None or instruction.mnemonic not in exemption.mnemonics):
            continue
        yield from exemption.bits(case, instruction, expected).items()


def is_exempt(case: Case, expected: Outcome) -> bool:
    """Whether nothing of a case is compared."""
    return {name for name, bits in _left_out(case, expected) if bits == _ALL} >= set(fields(expected))


def compared(case: Case, expected: Outcome, found: Outcome) -> str | None:
    """One line that names the wrong differences of `found` (ours) from `expected` (QEMU's), or None."""
    if expected == found:
        return None
    want, have = fields(expected), fields(found)
    wrong = {name: want[name] ^ have[name] for name in want if want[name] != have[name]}
    for name, bits in _left_out(case, expected):
        if name in wrong:
            wrong[name] &= ~bits
    wrong = {name: bits for name, bits in wrong.items() if bits}
    if not wrong:
        return None
    said = [f"{name}: ours {have[name]:#x}, QEMU {want[name]:#x}" for name in wrong]
    more = f"; and {len(said) - 5} more" if len(said) > 5 else ""
    return f"{label(case)} {describe(case)} -> " + "; ".join(said[:5]) + more


def is_transactional_without_rc(word: int) -> bool:
    """Whether a word that is no instruction is a transactional one without Rc: QEMU ignores that bit."""
    return word >> 26 == 31 and decode(word | 1) in UNIMPLEMENTED


def label(case: Case) -> str:
    """What kind of case it is: its instruction's mnemonic, "unknown word", or "program"."""
    if len(case.words) > 1:
        return "program"
    instruction = decode(case.words[0])
    if instruction is None:
        return "unknown word"
    if "SPR" in instruction.statics:
        return f"{instruction.mnemonic}({_operand(instruction, case.words[0], 'SPR')})"
    return instruction.mnemonic


__all__ = [
    *("NOT_DRAWN", "QEMU", "SPR_NAMES", "UNDEFINED", "Exemption", "compared", "is_exempt"),
    *("is_transactional_without_rc", "label"),
]
