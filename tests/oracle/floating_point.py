"""Cases of floating-point instructions: a program loads FPSCR and registers from memory and stores them.

A case is one instruction between words that bring its operands and FPSCR from the memory block and put what
becomes of them back into it. So the harness needs to know nothing about these registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import chronovisor.isa.meanings  # noqa: F401 - declares every instruction
from chronovisor.isa.bits import FPSCR, MSR
from chronovisor.isa.forms import Kind
from chronovisor.isa.ieee.formats import BINARY16, BINARY32, BINARY64, BINARY128, Format
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction

from .case import BACKGROUND, BLOCK, MSR_ME, MSR_SF, SPR_NAMES, Case, Outcome
from .operands import value

STATUS, A, B, C, T, TARGET, AFTER = (BLOCK + 16 * n for n in (0, 1, 2, 3, 4, 8, 9))
"""Where in the memory block are: FPSCR, three operands, the target before; the target and FPSCR after."""

_PLACES = {"A": A, "B": B, "C": C, "T": T}
_ADDRESS = {A: 10, B: 11, C: 12, T: 13, TARGET: 14}
"""The general registers that hold these addresses."""

_MSR = MSR_SF | MSR_ME | int(MSR.FP | MSR.VEC | MSR.VSX)
_ALL = (1 << 64) - 1


def _lfd(register: int, address: int) -> int:
    return 50 << 26 | register << 21 | address


def _stfd(register: int, address: int) -> int:
    return 54 << 26 | register << 21 | address


def _vector(extended: int, register: int, address: int) -> int:
    """lxvd2x (844) or stxvd2x (972)."""
    return 31 << 26 | (register & 31) << 21 | _ADDRESS[address] << 11 | extended << 1 | register >> 5


_SCRATCH = 31
"""The floating-point register through which FPSCR comes and goes. No case names it otherwise."""
_MTFSF_ALL = 63 << 26 | 1 << 25 | _SCRATCH << 11 | 711 << 1
_MFFS = 63 << 26 | 583 << 1


def pattern(random: Random, form: Format) -> int:
    """A pattern of bits of a format, near a boundary more often than not."""
    fraction = (1 << form.fraction_bits) - 1
    top = form.infinity >> form.fraction_bits
    near = form.bias + random.choice((-61, -14, -2, -1, 0, 1, 15, 30, 31, 32, 52, 53, 62, 63, 64))
    near = min(max(near, 0), top)
    exponent = random.choice((0, 1, top, top - 1, near, near, near, random.randrange(top + 1)))
    one = 1 << random.randrange(form.fraction_bits)
    low = random.choice((0, 1, fraction, form.quiet, one, -one, random.getrandbits(form.fraction_bits)))
    return form.signed(bool(random.getrandbits(1)), exponent << form.fraction_bits | low & fraction)


def _widened(bits: int) -> int:
    """A single in the double format, as a load converts it."""
    number = BINARY32.decode(bits)
    if not number.significand or number.is_nan:
        fraction = bits & ((1 << BINARY32.fraction_bits) - 1)
        special = BINARY64.infinity if bits & BINARY32.infinity else 0
        return BINARY64.signed(number.negative, special | fraction << 29)
    size = number.significand.bit_length()
    exponent = number.exponent + size - 1 + BINARY64.bias
    fraction = number.significand << (BINARY64.precision - size)
    return BINARY64.signed(number.negative, (exponent << 52) + fraction - (1 << 52))


def operand(random: Random) -> int:
    """128 bits: doubles, singles in doubles, singles, halves, integers, a quadruple."""
    kind = random.randrange(10)
    if kind in (7, 8):
        return pattern(random, BINARY128)
    if kind == 9:
        return sum(pattern(random, BINARY16) << shift for shift in range(0, 128, 16))
    if kind == 6:
        return sum(pattern(random, BINARY32) << shift for shift in (0, 32, 64, 96))
    if kind == 5:
        return value(random) << 64 | value(random)
    if kind == 4:
        return _widened(pattern(random, BINARY32)) << 64 | _widened(pattern(random, BINARY32))
    return pattern(random, BINARY64) << 64 | pattern(random, BINARY64)


def status(random: Random) -> int:
    """An FPSCR: any rounding mode, now and then enables and exceptions from before."""
    bits = random.getrandbits(2)
    if random.getrandbits(2) == 0:
        bits |= random.getrandbits(32) & int(FPSCR.VE | FPSCR.OE | FPSCR.UE | FPSCR.ZE | FPSCR.XE)
    if random.getrandbits(2) == 0:
        bits |= random.getrandbits(32) & ~0xFFF & ~int(FPSCR.FEX | FPSCR.VX)
    return bits


def _fields(
    random: Random, instruction: Instruction
) -> tuple[dict[str, int], dict[int, list[int]], int | None]:
    """The fields of a word, the registers that are operands (number -> its places), the target."""
    numbers: dict[str, int] = {}
    places: dict[int, list[int]] = {}
    target = None
    for field in instruction.fields:
        letter = field.name[-1] if field.name[-1] in _PLACES else ""
        floating = field.name in ("FRT", "FRA", "FRB", "FRC")
        vector = field.kind is Kind.VSR or field.name in ("VRT", "VRA", "VRB", "VRC")
        if not (floating or vector):
            numbers[field.name] = random.getrandbits(field.width) << field.shift
            if field.name == "RMC" and not numbers["R"]:
                numbers["RMC"] = random.choice((0, 3))  # the other two are reserved
            continue
        width = 6 if field.kind is Kind.VSR else 5
        number = random.getrandbits(width) % ((1 << width) - 1)  # not 31 nor 63
        while number == _SCRATCH:
            number = random.getrandbits(width) % ((1 << width) - 1)
        numbers[field.name] = number
        register = number + (32 if field.name.startswith("VR") else 0)
        places.setdefault(register, []).append(_PLACES[letter])
        if letter == "T":
            target = register
    return numbers, places, target


def with_status(words: list[int]) -> list[int]:
    """Return words that bring FPSCR from memory, then these words, and then those that put it back."""
    return [_lfd(_SCRATCH, STATUS), _MTFSF_ALL, *words, _MFFS | _SCRATCH << 21, _stfd(_SCRATCH, AFTER)]


def cases(random: Random, place: Iterator[int], chosen: Instruction, inputs: int) -> list[Case]:
    """`inputs` cases of one word of an instruction, at the next place."""
    numbers, registers, target = _fields(random, chosen)
    loads = [_vector(844, register, at[0]) for register, at in registers.items()]
    words = with_status([*loads, chosen.encode(**numbers)])
    if target is not None:
        words.append(_vector(972, target, TARGET))
    address = next(place)
    out = []
    for _ in range(inputs):
        memory = bytearray(256)
        memory[0:8] = status(random).to_bytes(8, "big")
        first = operand(random)
        for at in (A, B, C, T):
            near = random.getrandbits(3) == 0
            bits = first ^ (random.getrandbits(1) << 127) if near else operand(random)
            memory[at - BLOCK : at - BLOCK + 16] = bits.to_bytes(16, "big")
        for at, *others in registers.values():
            for other in others:
                memory[other - BLOCK : other - BLOCK + 16] = memory[at - BLOCK : at - BLOCK + 16]
        gpr = list(BACKGROUND)
        for at, register in _ADDRESS.items():
            gpr[register] = at
        case = Case(
            words=tuple(words),
            address=address,
            msr=_MSR,
            gpr=tuple(gpr),
            cr=random.getrandbits(32),
            xer=0,
            lr=0,
            ctr=0,
            sprs=(0,) * len(SPR_NAMES),
            memory=bytes(memory),
        )
        out.append(case)
    return out


@dataclass(frozen=True, slots=True)
class Seen:
    """What a case left: the target's 128 bits, FPSCR, CR."""

    target: int
    fpscr: int
    cr: int

    def __repr__(self) -> str:
        return f"(target {self.target:#034x}, FPSCR {self.fpscr:#010x}, CR {self.cr:#010x})"


def seen(outcome: Outcome) -> Seen:
    """What is left of a case that fell through to its trap."""

    def at(address: int, size: int) -> int:
        return int.from_bytes(outcome.memory[address - BLOCK : address - BLOCK + size], "big")

    return Seen(at(TARGET, 16), at(AFTER, 8), outcome.cr)


def before(case: Case, address: int, size: int = 8) -> int:
    """What a case begins with at a place of its memory."""
    return int.from_bytes(case.memory[address - BLOCK : address - BLOCK + size], "big")


def word(case: Case) -> int:
    """The word of the instruction that a case is about: the one before `mffs`."""
    return case.words[case.words.index(_MFFS | _SCRATCH << 21) - 1]


def instructions() -> list[Instruction]:
    """The instructions that compute in the floating-point formats, or move FPSCR."""
    return [one for one in INSTRUCTIONS if _computes(one)]


def _computes(instruction: Instruction) -> bool:
    if any(field.kind is Kind.GPR for field in instruction.fields):
        return False
    if instruction.cite.startswith("Book I 5."):
        return False  # decimals.py has them
    statements = list(instruction.program(tuple(0 for _ in instruction.statics)).statements())
    if any(one.op in ("load", "store") for one in statements):
        return False
    if any(one.op == "set" and one.detail == "MSR" for one in statements):
        return False  # What they do to exceptions that are pending, QEMU does not.
    moves = any(one.op in ("get", "set") and one.detail == "FPSCR" for one in statements)
    return moves or instruction.cite.startswith("Book I 4") or instruction.mnemonic.startswith(("xs", "xv"))
