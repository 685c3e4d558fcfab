"""What is not compared, and why: what the book leaves undefined, and where QEMU is not the book.

Sections are those of the Power ISA, version 3.0B. An entry names the instructions that it is about (all, where it
names none), says in which cases, and gives the fields that are left out: whole fields, or bits of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import Instruction

from .case import MSR_SF, SPR_NAMES, Case, Outcome, describe, fields

_ALL = (1 << 64) - 1
_HIGH = _ALL << 32 & _ALL
_CR0_COMPARED = 0xE000_0000


@dataclass(frozen=True, slots=True)
class Exemption:
    """Bits of the outcome that are not compared. `bits` gives, for a case of these mnemonics, field -> bits."""

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
        a, b = (n - (n >> (width - 1) << width) for n in (a, b))
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
        frozenset(),
        "Book III 6.5.8",
        "an alignment interrupt leaves DSISR undefined",
        lambda case, instruction, outcome: {"DSISR": _ALL} if outcome.vector == 0x600 else {},
    ),
)
"""What the book itself leaves open."""

QEMU: tuple[Exemption, ...] = ()
"""Where QEMU 7.2 answers otherwise than the book."""


def compared(case: Case, expected: Outcome, found: Outcome) -> str | None:
    """One line that says where `found` (ours) is not `expected` (QEMU's) although it ought to be, or None."""
    if expected == found:
        return None
    want, have = fields(expected), fields(found)
    wrong = {name: want[name] ^ have[name] for name in want if want[name] != have[name]}
    instruction = decode(case.words[0]) if len(case.words) == 1 else None
    for exemption in (*UNDEFINED, *QEMU):
        if exemption.mnemonics and (instruction is None or instruction.mnemonic not in exemption.mnemonics):
            continue
        for name, bits in exemption.bits(case, instruction, expected).items():
            if name in wrong:
                wrong[name] &= ~bits
    wrong = {name: bits for name, bits in wrong.items() if bits}
    if not wrong:
        return None
    said = [f"{name}: ours {have[name]:#x}, QEMU {want[name]:#x}" for name in wrong]
    more = f"; and {len(said) - 5} more" if len(said) > 5 else ""
    label = instruction.mnemonic if instruction is not None else "program"
    return f"{label} {describe(case)} -> " + "; ".join(said[:5]) + more


__all__ = ["QEMU", "SPR_NAMES", "UNDEFINED", "Exemption", "compared"]
