"""QEMU computes what the decimal floating-point instructions of ours do.

What processors printed decides where QEMU differs: tests/linux_guest/valgrind_programs.py has the programs.
"""

from __future__ import annotations

from random import Random

import pytest
from soak import new_seed

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.ieee.decimal_formats import DECIMAL32, DECIMAL64, DECIMAL128, Datum, Kind
from chronovisor.isa.meanings.floating_point_exceptions import EXCEPTIONS, FPRF, INVALID

from . import decimals
from .case import BLOCK, Case, Outcome
from .floating_point import AFTER, STATUS, before, word
from .generate import places
from .ours import Evaluator
from .qemu import run_batch

pytestmark = pytest.mark.usefixtures("qemu")

INPUTS = 4
_ENABLES = int(FPSCR.VE | FPSCR.OE | FPSCR.UE | FPSCR.ZE)


def compare_words(seed: int, rounds: int) -> int:
    """Compare so many words of each instruction; the number of cases."""
    random, place = Random(seed), places()
    made = [
        case
        for one in decimals.instructions()
        for _ in range(rounds)
        for case in decimals.cases(random, place, one, INPUTS)
    ]
    evaluator, wrong = Evaluator(), []
    for case, answer in zip(made, run_batch(made), strict=True):
        found = evaluator.evaluate(case)
        if difference := _difference(case, answer, found):
            wrong.append(f"{decode(word(case))} {word(case):#010x}: {difference}")
    told = "\n".join(wrong[:10])
    assert not wrong, f"CHRONOVISOR_SEED={seed}: {len(wrong)} of {len(made)} cases differ:\n{told}"
    return len(made)


def _difference(case: Case, qemu: Outcome, ours: Outcome) -> str:
    """What differs that should not."""
    if qemu.srr0 != ours.srr0 or qemu.vector != ours.vector:
        return f"it ends at {ours.srr0:#x}, QEMU's at {qemu.srr0:#x}"
    if before(case, STATUS) & _ENABLES:
        # QEMU puts a result into the target where an enabled exception forbids it, and adjusts no exponents.
        return ""
    mnemonic = _mnemonic(case)
    theirs, mine = _status(qemu), _status(ours)
    invalid = mine & INVALID & ~before(case, STATUS)
    open_flags = FPSCR.FR | FPSCR.FI  # QEMU sets no FR, and does not clear FI
    if before(case, STATUS) & EXCEPTIONS and not before(case, STATUS) & FPSCR.FX:
        open_flags |= FPSCR.FX
    if mnemonic.startswith(("drrnd", "denbcd")):
        # QEMU takes the number of VE for its bit.
        open_flags |= FPSCR.FEX
    flags = int(open_flags)
    if mnemonic.startswith("denbcd") and (invalid or _has_a_ten(case)):
        # QEMU leaves FPRF alone if a digit is wrong, and takes 10 for a digit.
        flags |= FPRF | INVALID | int(FPSCR.VX | FPSCR.FX)
    if mnemonic in ("dctdp", "drsp") and _operand(case).kind is Kind.SIGNALLING:
        flags |= FPRF  # a signalling NaN has no class
    if mnemonic == "drdpq" and _operand(case).kind is Kind.SIGNALLING:
        flags |= int(FPSCR.VXSNAN | FPSCR.VX | FPSCR.FX)  # QEMU takes it for a quiet one
    if (mine ^ theirs) & ~flags & 0xFFFF_FFFF:
        return f"FPSCR {mine:#x}, QEMU's {theirs:#x}"
    if _skips_target(case, mnemonic):
        return ""
    for number, (have, want) in enumerate(zip(_registers(ours), _registers(qemu), strict=True)):
        if have != want:
            return f"f{number} {have:#x}, QEMU's {want:#x}"
    cr = ours.cr ^ qemu.cr
    return f"CR {ours.cr:#x}, QEMU's {qemu.cr:#x}" if cr & ~_condition(flags) else ""


def _mnemonic(case: Case) -> str:
    instruction = decode(word(case))
    assert instruction is not None
    return instruction.mnemonic


def _status(outcome: Outcome) -> int:
    return int.from_bytes(outcome.memory[AFTER - BLOCK : AFTER - BLOCK + 8], "big")


def _condition(flags: int) -> int:
    """The bits of CR field 1 that follow flags which are not compared."""
    return flags >> 28 << 24 & 0x0F00_0000


def _operand(case: Case, name: str = "FRB") -> Datum:
    assert case.vectors is not None
    form = DECIMAL128 if _mnemonic(case).endswith("q") and _mnemonic(case) != "dctqpq" else DECIMAL64
    number = FIELDS[name].decode(word(case))
    high, low = (case.vectors.vsr[number | which] >> 64 for which in (0, 1))
    if _mnemonic(case) == "dctdp":
        return DECIMAL32.decode(high & 0xFFFF_FFFF)
    return form.decode(high << 64 | low if form is DECIMAL128 else high)


def _has_a_ten(case: Case) -> bool:
    assert case.vectors is not None
    number = FIELDS["FRB"].decode(word(case))
    halves = [case.vectors.vsr[number | which] >> 64 for which in (0, 1)]
    return any("a" in f"{half:x}" for half in halves)


def _skips_target(case: Case, mnemonic: str) -> bool:
    if mnemonic == "drdpq":
        return True  # QEMU puts the result into the second register
    if mnemonic == "drsp":
        return _operand(case).is_nan  # QEMU drops the payload
    if mnemonic.startswith("dsc"):
        # QEMU keeps what follows the combination field of a NaN, and drops the digits of an infinity.
        return _operand(case, "FRA").kind is not Kind.FINITE
    if mnemonic.startswith(("ddedpd", "diex")):
        return _operand(case).kind is Kind.INFINITY  # QEMU drops its digits
    return mnemonic.startswith("denbcd") and _has_a_ten(case)


def _registers(outcome: Outcome) -> list[int]:
    """All registers but the one that FPSCR goes through; their second halves are undefined."""
    assert outcome.vectors is not None
    return [one >> 64 for one in outcome.vectors.vsr[:31]]


@pytest.mark.oracle
def test_sample_of_every_instruction() -> None:
    assert compare_words(new_seed(), 1) == len(decimals.instructions()) * INPUTS
    assert len(decimals.instructions()) == 52
