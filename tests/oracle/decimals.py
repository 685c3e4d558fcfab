"""Cases of decimal floating-point instructions: numbers of like exponents, boundaries, and any bits."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import chronovisor.isa.meanings  # noqa: F401 - declares every instruction
from chronovisor.isa.bits import FPSCR
from chronovisor.isa.ieee.decimal_formats import DECIMAL32, DECIMAL64, DECIMAL128, Datum, DecimalFormat, Kind
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction

from . import floating_point
from .case import BACKGROUND, MSR_FP, MSR_ME, MSR_SF, MSR_VEC, MSR_VSX, SPR_NAMES, Case, Vectors

_FLOATING = ("FRT", "FRA", "FRB")


def instructions() -> list[Instruction]:
    """The decimal instructions."""
    return [one for one in INSTRUCTIONS if one.cite.startswith("Book I 5.")]


def datum(random: Random, form: DecimalFormat) -> Datum:
    """Draw a datum: an integer or a number with a few decimals more often than not."""
    kind = random.choices(list(Kind), (20, 1, 1, 1))[0]
    negative = bool(random.getrandbits(1))
    size = random.choice((0, 1, 2, form.precision // 2, form.precision - 1, form.precision, form.precision))
    digits = random.choice((random.randrange(10**size), 10**size - 1, 5 * 10 ** max(0, size - 1)))
    least, most = -form.bias, form.largest_biased - form.bias
    near = random.randrange(-form.precision - 2, form.precision + 2)
    exponent = random.choice((0, near, near, near, near, least, least + 3, most, most - 3, -2))
    if kind is not Kind.FINITE:
        digits %= 10 ** (form.precision - 1)
    return Datum(kind, negative, digits % 10**form.precision, exponent)


def operand(random: Random, form: DecimalFormat) -> int:
    """Draw the bits of an operand."""
    match random.randrange(12):
        case 0:
            return random.getrandbits(form.width)
        case 1:  # an integer or a packed decimal
            packed = int(str(random.randrange(10 ** random.choice((3, 15, 16, 31)))), 16)
            return (packed << 4 | random.randrange(16)) & (1 << form.width) - 1
        case 2:
            return random.choice((-3, -2, -1, random.randrange(-40, 40))) & (1 << form.width) - 1
        case 3:
            return random.randrange(form.largest_biased + 3)
        case 4:
            return DECIMAL32.encode(datum(random, DECIMAL32)) & (1 << form.width) - 1
    return form.encode(datum(random, form))


def status(random: Random) -> int:
    """An FPSCR: any decimal rounding mode, now and then enables and exceptions from before."""
    bits = random.randrange(8) << 32 | random.getrandbits(2)
    if random.getrandbits(2) == 0:
        bits |= random.getrandbits(32) & int(FPSCR.VE | FPSCR.OE | FPSCR.UE | FPSCR.ZE | FPSCR.XE)
    if random.getrandbits(2) == 0:
        bits |= random.getrandbits(32) & ~0xFFF & ~int(FPSCR.FEX | FPSCR.VX)
    return bits


def cases(random: Random, place: Iterator[int], chosen: Instruction, inputs: int) -> list[Case]:
    """`inputs` cases of one word of an instruction, at the next place."""
    form = DECIMAL128 if chosen.mnemonic.endswith("q") else DECIMAL64
    word = chosen.match | random.getrandbits(32) & ~chosen.mask
    numbers = {}
    for field in chosen.fields:
        if field.name in _FLOATING:
            # Pairs of registers have even numbers; the last one holds FPSCR.
            numbers[field.name] = random.randrange(0, 30, 2)
            word = word & ~field.encode(31) | field.encode(numbers[field.name])
    address, words = next(place), tuple(floating_point.with_status([word]))
    made = []
    for _ in range(inputs):
        vsr: list[int] = []
        while len(vsr) < 64:
            pair = operand(random, form)
            if form is DECIMAL64:
                pair = pair << 64 | operand(random, form)
            elif random.getrandbits(3) == 0:
                pair = operand(random, DECIMAL64) << 64 | pair & (1 << 64) - 1
            low = random.getrandbits(64)
            vsr += [pair >> 64 << 64 | low, (pair & (1 << 64) - 1) << 64 | low]
        if random.getrandbits(2) == 0:
            vsr[numbers.get("FRA", 0)] = vsr[numbers.get("FRB", 0)]
        made.append(
            Case(
                words=words,
                address=address,
                msr=MSR_SF | MSR_ME | MSR_FP | MSR_VEC | MSR_VSX,
                gpr=BACKGROUND,
                cr=random.getrandbits(32),
                xer=0,
                lr=0,
                ctr=0,
                sprs=(0,) * len(SPR_NAMES),
                memory=status(random).to_bytes(8, "big") + bytes(248),
                vectors=Vectors(tuple(vsr), 0, 0),
            )
        )
    return made
