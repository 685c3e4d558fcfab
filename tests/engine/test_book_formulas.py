"""Carry, overflow and record forms of add, subtract, rotate-and-mask and compare: for all 64-bit operands as
formulas written from the book alone (Power ISA 3.0B Book I, 3.3.9 to 3.3.14) say.

The formulas share nothing with the meanings: sums are made in 66 bits as signed or unsigned numbers, masks
are made bit by bit, and flags are told by whether a number fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import z3

from chronovisor.engine.symbolic import evaluator
from chronovisor.engine.symbolic.state import SymbolicState
from chronovisor.isa.assembly import assemble
from chronovisor.isa.bits import MSR
from chronovisor.isa.decode import decode

A, B = z3.BitVec("r4", 64), z3.BitVec("r5", 64)
T = z3.BitVec("r3", 64)
XER, CR = z3.BitVec("XER", 64), z3.BitVec("CR", 32)
CA, OV, SO = (z3.Extract(bit, bit, XER) for bit in (29, 30, 31))
WIDE = 66

Word = z3.BitVecRef


def signed(value: Word, width: int = 64) -> Word:
    return z3.SignExt(WIDE - width, z3.Extract(width - 1, 0, value))


def unsigned(value: Word, width: int = 64) -> Word:
    return z3.ZeroExt(WIDE - width, z3.Extract(width - 1, 0, value))


def one_bit(condition: z3.BoolRef) -> Word:
    return z3.If(condition, z3.BitVecVal(1, 1), z3.BitVecVal(0, 1))


def after(text: str, sixty_four: bool) -> SymbolicState:
    """The state behind one instruction, whose registers hold anything."""
    word = int.from_bytes(assemble(text), "big")
    instruction = decode(word)
    assert instruction is not None
    state = SymbolicState.unknown(known={"CIA": 0x100, "MSR": int(MSR.SF) * sixty_four})

    class NothingLive:
        def passes(self, state: SymbolicState) -> None: ...

        def read(self, name: str, state: SymbolicState) -> Word:
            raise AssertionError(name)

        def write(self, name: str, value: Word, when: z3.BoolRef, state: SymbolicState) -> None:
            raise AssertionError(name)

    outcome = evaluator.execute(instruction, word, state, NothingLive())
    assert z3.is_true(outcome.completed)
    return state


def prove_equal(what: str, found: Word, formula: Word) -> None:
    solver = z3.Solver()
    solver.set("timeout", 120_000)
    solver.add(found != formula)
    assert solver.check() == z3.unsat, (
        f"{what}: {solver.model() if solver.check() == z3.sat else 'undecided'}"
    )


# name: (the two addends beside the carry, as numbers from the registers; the carry in)
ADDENDS: dict[str, tuple[Callable[[], tuple[Word, Word]], Word | int, str]] = {
    "add": (lambda: (A, B), 0, "r3,r4,r5"),
    "addc": (lambda: (A, B), 0, "r3,r4,r5"),
    "adde": (lambda: (A, B), CA, "r3,r4,r5"),
    "addme": (lambda: (A, z3.BitVecVal(-1, 64)), CA, "r3,r4"),
    "addze": (lambda: (A, z3.BitVecVal(0, 64)), CA, "r3,r4"),
    "subf": (lambda: (~A, B), 1, "r3,r4,r5"),
    "subfc": (lambda: (~A, B), 1, "r3,r4,r5"),
    "subfe": (lambda: (~A, B), CA, "r3,r4,r5"),
    "subfme": (lambda: (~A, z3.BitVecVal(-1, 64)), CA, "r3,r4"),
    "subfze": (lambda: (~A, z3.BitVecVal(0, 64)), CA, "r3,r4"),
    "neg": (lambda: (~A, z3.BitVecVal(0, 64)), 1, "r3,r4"),
}
CARRYING = {"addc", "adde", "addme", "addze", "subfc", "subfe", "subfme", "subfze"}


def recorded(result: Word, so: Word, sixty_four: bool) -> Word:
    """CR field 0: the sign of the result, as the mode sees it, and SO."""
    seen = result if sixty_four else z3.Extract(31, 0, result)
    bits = [one_bit(seen < 0), one_bit(seen > 0), one_bit(seen == 0), so]
    return z3.Concat(*bits, z3.Extract(27, 0, CR))


def with_bits(xer: Word, bits: dict[int, Word]) -> Word:
    for number, bit in bits.items():
        one = z3.BitVecVal(1 << number, 64)
        xer = z3.If(bit == 1, xer | one, xer & ~one)
    return xer


@pytest.mark.parametrize("sixty_four", [True, False], ids=["64 bit", "32 bit"])
@pytest.mark.parametrize("form", ["", ".", "o", "o."])
@pytest.mark.parametrize("name", ADDENDS)
def test_sums(name: str, form: str, sixty_four: bool) -> None:
    make, carry, operands = ADDENDS[name]
    a, b = make()
    carry_in = z3.ZeroExt(WIDE - 1, carry) if isinstance(carry, z3.BitVecRef) else z3.BitVecVal(carry, WIDE)
    state = after(f"{name}{form} {operands}", sixty_four)

    def overflows(width: int) -> Word:
        total = signed(a, width) + signed(b, width) + carry_in
        return one_bit(z3.Or(total >= 1 << (width - 1), total < -(1 << (width - 1))))

    def carries(width: int) -> Word:
        return one_bit(z3.UGE(unsigned(a, width) + unsigned(b, width) + carry_in, 1 << width))

    mode = 64 if sixty_four else 32
    result = z3.Extract(63, 0, signed(a) + signed(b) + carry_in)
    bits: dict[int, Word] = {}
    if name in CARRYING:
        bits |= {29: carries(mode), 18: carries(32)}
    so = SO
    if "o" in form:
        so = SO | overflows(mode)
        bits |= {30: overflows(mode), 19: overflows(32), 31: so}
    prove_equal("result", state.gpr[3], result)
    prove_equal("XER", state["XER"], with_bits(XER, bits))
    prove_equal("CR", state["CR"], recorded(result, so, sixty_four) if "." in form else CR)


IMMEDIATES = (0, 1, -1, 0x7FFF, -0x8000, 0x1234)


@pytest.mark.parametrize("number", IMMEDIATES)
@pytest.mark.parametrize("sixty_four", [True, False], ids=["64 bit", "32 bit"])
def test_sums_with_a_number_in_the_instruction(number: int, sixty_four: bool) -> None:
    width = 64 if sixty_four else 32
    si = z3.BitVecVal(number, 64)
    for text, a, carry in (
        (f"addi r3,r4,{number}", A, 0),
        (f"addic r3,r4,{number}", A, 0),
        (f"addic. r3,r4,{number}", A, 0),
        (f"subfic r3,r4,{number}", ~A, 1),
        (f"addis r3,r4,{number}", A, 0),
    ):
        state = after(text, sixty_four)
        b = si * 0x10000 if text.startswith("addis") else si
        total = z3.Extract(63, 0, signed(a) + signed(b) + carry)
        bits = {}
        if "ic" in text:
            bits = {
                place: one_bit(z3.UGE(unsigned(a, w) + unsigned(b, w) + carry, 1 << w))
                for place, w in ((29, width), (18, 32))
            }
        prove_equal(text, state.gpr[3], total)
        prove_equal(text, state["XER"], with_bits(XER, bits))
        prove_equal(text, state["CR"], recorded(total, SO, sixty_four) if "." in text else CR)


@pytest.mark.parametrize("sixty_four", [True, False], ids=["64 bit", "32 bit"])
@pytest.mark.parametrize("field", [0, 1, 7])
def test_comparisons(field: int, sixty_four: bool) -> None:
    """Compared as exact numbers, signed or not, of the whole register or its low word."""
    for name, width, widened in (
        ("cmpw", 32, signed),
        ("cmpd", 64, signed),
        ("cmplw", 32, unsigned),
        ("cmpld", 64, unsigned),
    ):
        immediate = 0x8234 if "l" in name else -0x4321
        for other, b in (("r5", B), (str(immediate), z3.BitVecVal(immediate, 64))):
            text = name if other == "r5" else f"{name}i"
            x, y = widened(A, width), widened(b, width)
            four = z3.Concat(one_bit(x < y), one_bit(x > y), one_bit(x == y), SO)
            shift = 4 * (7 - field)
            formula = (CR & ~(0xF << shift)) | (z3.ZeroExt(28, four) << shift)
            state = after(f"{text} cr{field},r4,{other}", sixty_four)
            prove_equal(text, state["CR"], formula)
            prove_equal(text, state["XER"], XER)


def mask(first: int, last: int) -> int:
    """The book's MASK(x, y): bit by bit, 0 the most significant, around the end where x > y."""
    bits = range(first, last + 1) if first <= last else [*range(first, 64), *range(last + 1)]
    return sum(1 << (63 - bit) for bit in bits)


def rotated(value: Word, amount: Word | int) -> Word:
    """ROTL64 as the shift of the doubleword beside itself."""
    amount = z3.BitVecVal(amount, 64) if isinstance(amount, int) else amount & 63
    return z3.Extract(127, 64, z3.Concat(value, value) << z3.ZeroExt(64, amount))


def twice(value: Word) -> Word:
    """The low word beside itself."""
    return z3.Concat(z3.Extract(31, 0, value), z3.Extract(31, 0, value))


S = A  # RS

EDGES = (0, 1, 31, 32, 63)


def rotates() -> Iterator[tuple[str, Word]]:
    for sh in EDGES:
        for m in EDGES:
            yield f"rldicl r3,r4,{sh},{m}", rotated(S, sh) & mask(m, 63)
            yield f"rldicr r3,r4,{sh},{m}", rotated(S, sh) & mask(0, m)
            yield f"rldic r3,r4,{sh},{m}", rotated(S, sh) & mask(m, 63 - sh)
            inserted = mask(m, 63 - sh)
            yield f"rldimi r3,r4,{sh},{m}", (rotated(S, sh) & inserted) | (T & ~z3.BitVecVal(inserted, 64))
    for m in EDGES:
        yield f"rldcl r3,r4,r5,{m}", rotated(S, B) & mask(m, 63)
        yield f"rldcr r3,r4,r5,{m}", rotated(S, B) & mask(0, m)
    for sh, mb, me in ((0, 0, 31), (8, 24, 31), (24, 0, 7), (31, 5, 4), (1, 31, 0), (16, 16, 15), (5, 7, 7)):
        bits = mask(mb + 32, me + 32)
        yield f"rlwinm r3,r4,{sh},{mb},{me}", rotated(twice(S), sh) & bits
        yield f"rlwnm r3,r4,r5,{mb},{me}", rotated(twice(S), B & 31) & bits
        kept = T & ~z3.BitVecVal(bits, 64)
        yield f"rlwimi r3,r4,{sh},{mb},{me}", (rotated(twice(S), sh) & bits) | kept


@pytest.mark.parametrize("sixty_four", [True, False], ids=["64 bit", "32 bit"])
def test_rotates_with_masks(sixty_four: bool) -> None:
    for text, formula in rotates():
        name, _, operands = text.partition(" ")
        for form in ("", "."):
            state = after(f"{name}{form} {operands}", sixty_four)
            prove_equal(text, state.gpr[3], formula)
            prove_equal(text, state["CR"], recorded(formula, SO, sixty_four) if form else CR)
            prove_equal(text, state["XER"], XER)
