"""Where QEMU's floating point is not the book's, or the book leaves it open: which bits are not compared.

The exact model of ``chronovisor.isa.ieee`` decides, which has tests of its own (tests/isa/test_ieee.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.ieee import Rounding
from chronovisor.isa.ieee.formats import BINARY32, BINARY64
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.meanings.floating_point_exceptions import EXCEPTIONS, FPRF, INVALID

from .case import Case
from .floating_point import STATUS, A, B, C, Seen, before, word

_ROUNDED = int(FPSCR.FX | FPSCR.FEX | FPSCR.OX | FPSCR.UX | FPRF)
_SIGNALLED = int(FPSCR.FX | FPSCR.FEX | FPSCR.VX | FPSCR.VXSNAN)
_LIMITS = int(FPSCR.OX | FPSCR.UX | FPSCR.FX | FPSCR.FEX)
_FX, _CR1_FX = int(FPSCR.FX), 0x0800_0000
_LOW = (1 << 64) - 1
_WHOLE = (1 << 128) - 1
_FIRST = _WHOLE ^ _LOW
"""The doubleword of a floating-point register."""
_SMALLEST_SINGLE = BINARY32.smallest_exponent + BINARY64.bias << BINARY64.fraction_bits
"""The smallest normal number of the single format, in the double format."""


@dataclass(frozen=True, slots=True)
class Exemption:
    """Bits of what a case left that are not compared; ``bits`` gives them, from the case and QEMU's answer.

    ``names`` tells whether the entry is about an instruction, by its mnemonic.
    """

    names: Callable[[str], bool]
    section: str
    reason: str
    bits: Callable[[Case, Seen], Seen]


def _all(_: str) -> bool:
    return True


def _is(text: str) -> Callable[[str], bool]:
    names = frozenset(text.split())
    return lambda name: name in names


def _single(name: str) -> bool:
    if name.startswith("xs"):
        return name.endswith("sp") and name != "xscvdpsp"
    return name == "frsp" or (name.startswith("f") and name.endswith("s") and name != "fabs")


def _estimates(name: str) -> bool:
    return name.startswith(("xsre", "xvre", "xsrsqrte", "xvrsqrte"))


def _of_zeros(case: Case, _: Seen) -> Seen:
    both_zero = not (before(case, A) | before(case, B)) & ~BINARY64.sign
    return Seen(BINARY64.sign << 64 if both_zero else 0, 0, 0)


def _zero_enabled(case: Case, _: Seen) -> Seen:
    raised = int(FPSCR.FX | FPSCR.ZX)
    enabled = before(case, STATUS) & FPSCR.ZE
    return Seen(_WHOLE, raised | FPRF | int(FPSCR.FEX), 0) if enabled else Seen(0, raised, 0)


def _scalar(name: str) -> bool:
    return name.startswith("xs") and "qp" not in name


def _known_exceptions(case: Case, _: Seen) -> Seen:
    initial = before(case, STATUS)
    return Seen(0, _FX, _CR1_FX) if initial & EXCEPTIONS and not initial & _FX else Seen(0, 0, 0)


def _enabled(case: Case, qemu: Seen) -> Seen:
    initial = before(case, STATUS)
    raised = qemu.fpscr
    invalid = initial & FPSCR.VE and raised & INVALID
    by_zero = initial & FPSCR.ZE and raised & FPSCR.ZX
    return Seen(_WHOLE, FPRF, 0) if invalid or by_zero else Seen(0, 0, 0)


def _class_of_nan(_: Case, qemu: Seen) -> Seen:
    return Seen(0, FPRF if qemu.fpscr & FPSCR.VXCVI else 0, 0)


def _single_result(_: Case, qemu: Seen) -> Seen:
    magnitude = qemu.target >> 64 & ~BINARY64.sign
    if magnitude > _SMALLEST_SINGLE:
        return Seen(0, 0, 0)
    return Seen(0, int(FPSCR.UX) if magnitude == _SMALLEST_SINGLE else int(FPSCR.UX | FPSCR.C), 0)


_directed_bits = Seen(_WHOLE, _ROUNDED, _CR1_FX | 0x0100_0000)


def _directed(case: Case, _: Seen) -> Seen:
    return (
        _directed_bits if before(case, STATUS) & FPSCR.RN in (Rounding.UP, Rounding.DOWN) else Seen(0, 0, 0)
    )


def _to_integers(name: str) -> bool:
    return name.startswith(("xvcvsp", "xvcvdp")) and name.endswith(("xws", "xds"))


def _after_invalid(_: Case, qemu: Seen) -> Seen:
    return Seen(_WHOLE >> 32 if qemu.fpscr & FPSCR.VXCVI else 0, 0, 0)


def _rounded_otherwise(case: Case, _: Seen) -> Seen:
    swapped = before(case, STATUS) & FPSCR.RN in (Rounding.TOWARD_ZERO, Rounding.DOWN)
    by_status = word(case) >> 9 & 3 == 3 and not word(case) >> 16 & 1
    return _directed_bits if swapped and by_status else Seen(0, 0, 0)


def _single_denormal(case: Case, _: Seen) -> Seen:
    number = before(case, B) & ~BINARY64.sign
    field = FIELDS["BF"].decode(word(case))
    denormal = 1 << BINARY64.fraction_bits <= number < _SMALLEST_SINGLE
    return Seen(0, int(FPSCR.FE), 2 << (28 - 4 * field)) if denormal else Seen(0, 0, 0)


def _divided_by_zero(_: Case, qemu: Seen) -> Seen:
    return Seen(_FIRST, FPRF, 0) if qemu.fpscr & FPSCR.ZX else Seen(0, 0, 0)


def _trapped(case: Case, qemu: Seen) -> bool:
    """Whether an overflow or an underflow is enabled and was there."""
    return bool((qemu.fpscr >> 25) & (before(case, STATUS) >> 3) & 0xC)


def _wide_single(case: Case, qemu: Seen) -> Seen:
    numbers = (before(case, which) & ~BINARY64.sign for which in (A, B, C))
    wide = any(n and abs((n >> BINARY64.fraction_bits) - BINARY64.bias) > BINARY32.bias for n in numbers)
    # QEMU adjusts the exponent of a product of doubles that underflows: it is too large for a single then.
    too_large = before(case, STATUS) & FPSCR.UE and qemu.fpscr & FPSCR.OX
    raised = int(FPSCR.XX | FPSCR.FI) | FPRF | (_LIMITS if too_large else 0)
    return Seen(_FIRST, raised, 0) if wide and (too_large or _trapped(case, qemu)) else Seen(0, 0, 0)


def _rounded_twice(_: Case, qemu: Seen) -> Seen:
    """The bits in which the numbers beside QEMU's differ from it, in the single format."""
    number, unit = qemu.target >> 64, 1 << (BINARY64.fraction_bits - BINARY32.fraction_bits)
    beside = ((number ^ number + unit) | (number ^ number - unit)) & _LOW
    return Seen(beside << 64 if qemu.fpscr & FPSCR.XX else 0, 0, 0)


def _overflow_alone(case: Case, qemu: Seen) -> Seen:
    if not qemu.fpscr & FPSCR.OX:
        return Seen(0, 0, 0)
    target = _WHOLE if before(case, STATUS) & FPSCR.UE else 0
    return Seen(target, int(FPSCR.UX | FPSCR.FX | FPSCR.FEX), 0)


def _narrowed(case: Case, qemu: Seen) -> Seen:
    raised = int(FPSCR.FX | FPSCR.FEX | FPSCR.UX | FPSCR.XX | FPSCR.FI) | FPRF
    return Seen(_WHOLE, raised, 0) if _trapped(case, qemu) else Seen(0, 0, 0)


def _tiny_extreme(case: Case, _: Seen) -> Seen:
    raised = int(FPSCR.FX | FPSCR.FEX | FPSCR.UX)
    return Seen(_WHOLE, raised, 0) if before(case, STATUS) & FPSCR.UE else Seen(0, 0, 0)


def _trapped_element(case: Case, qemu: Seen) -> Seen:
    enabled = (qemu.fpscr >> 25) & (before(case, STATUS) >> 3) & 0xF
    return Seen(_WHOLE if enabled else 0, 0, 0)


def _always(bits: Seen) -> Callable[[Case, Seen], Seen]:
    return lambda case, qemu: bits


EXEMPTIONS: tuple[Exemption, ...] = (
    Exemption(_all, "Book I 4.2.2", "QEMU never sets FR", _always(Seen(0, int(FPSCR.FR), 0))),
    Exemption(
        _all,
        "Book I 4.2.2",
        "FX is set if an exception bit changes from 0 to 1; QEMU sets it if the bit was 1 before, too",
        _known_exceptions,
    ),
    Exemption(
        _all,
        "Book I 4.4.1, 4.4.2",
        "an enabled invalid operation or division by zero leaves the target and FPRF alone; QEMU sets them, "
        "unless it interrupts",
        _enabled,
    ),
    Exemption(
        _single,
        "Book I 4.4.3, 4.4.4",
        "an enabled overflow or underflow changes the exponent by 192; QEMU cuts exponents that the single "
        "format does not have even then, to which only operands lead that are no singles",
        _wide_single,
    ),
    Exemption(
        lambda name: name.startswith("xs") and _single(name),
        "Book I 4.3.6",
        "a result is rounded once; QEMU rounds it to a double and then to a single",
        _rounded_twice,
    ),
    Exemption(
        lambda name: name.startswith("xv"),
        "Book I 7.6.3",
        "an enabled exception of an element leaves the target alone; QEMU sets it",
        _trapped_element,
    ),
    Exemption(
        _is("xscvdpsp xscvqpdp xscvqpdpo xscvdphp xvcvsphp xvcvdpsp"),
        "Book I 7.6.3",
        "an adjusted exponent need not fit the narrower format; QEMU cuts it",
        _narrowed,
    ),
    Exemption(
        lambda name: name.startswith(("xvmin", "xvmax", "xsmin", "xsmax")),
        "Book I 7.6.3",
        "the smaller or the larger number is no new number; QEMU has a denormal one underflow",
        _tiny_extreme,
    ),
    Exemption(
        lambda name: "madd" in name or "msub" in name,
        "Book I 4.4.1",
        "infinity times zero and a signaling NaN to be added raise both exceptions; QEMU raises VXIMZ alone",
        lambda case, qemu: Seen(0, int(FPSCR.VXSNAN) if qemu.fpscr & FPSCR.VXIMZ else 0, 0),
    ),
    Exemption(
        _is("fcfidu fcfids fcfidus"),
        "Book I 4.6.7.2",
        "FPRF is the result's class; QEMU leaves it alone",
        _always(Seen(0, FPRF, 0)),
    ),
    Exemption(
        lambda name: name.startswith("fcti"),
        "Book I 4.6.7.2",
        "FPRF is undefined after an invalid conversion",
        _class_of_nan,
    ),
    Exemption(
        _is("fctiw fctiwz fctiwu fctiwuz"),
        "Book I 4.6.7.2",
        "the upper half of a word's result is undefined",
        _always(Seen(0xFFFF_FFFF << 96, 0, 0)),
    ),
    Exemption(
        _single,
        "Book I 4.3.2, 4.2.2",
        "a class is the single format's, and a tiny result that is inexact underflows; QEMU looks at the "
        "double format, and rounds to it first",
        _single_result,
    ),
    Exemption(
        lambda name: name.startswith(("fnm", "xsnm", "xvnm")),
        "Book I 4.6.6.2",
        "the sum is rounded and then negated; QEMU negates it first, which differs in rounding up or down",
        _directed,
    ),
    Exemption(
        _is("fcmpu fcmpo xscmpudp xscmpodp"),
        "Book I 4.2.2, 4.6.8",
        "a comparison leaves FI and C alone; QEMU clears FI, and sets C if the comparison is invalid",
        _always(Seen(0, int(FPSCR.FI | FPSCR.C), 0)),
    ),
    Exemption(
        lambda name: name.startswith("xv"),
        "Book I 7.4",
        "vector instructions leave FR and FI alone; QEMU sets FI",
        _always(Seen(0, int(FPSCR.FI), 0)),
    ),
    Exemption(
        lambda name: name.startswith("xv"),
        "Book I 7.4",
        "one element can overflow and another one underflow; QEMU then raises OX alone",
        _overflow_alone,
    ),
    Exemption(
        _is("xsmaxjdp xsminjdp"),
        "Book I 7.6.3",
        "either operand raises VXSNAN if it signals; QEMU looks at the first alone if that is a NaN",
        lambda case, qemu: Seen(_WHOLE if before(case, STATUS) & FPSCR.VE else 0, _SIGNALLED, 0),
    ),
    Exemption(
        _is("xsmaxcdp xsmincdp"),
        "Book I 7.6.3",
        "the second of two zeros is the result, as on processors; QEMU gives the first",
        _of_zeros,
    ),
    Exemption(
        _estimates,
        "Book I 7.6.3",
        "an estimate of 1/0 raises ZX; QEMU raises nothing",
        _zero_enabled,
    ),
    Exemption(
        _scalar,
        "Book I 7.6.3",
        "the second doubleword of the target is undefined: zeros here, in QEMU what was there",
        _always(Seen(_LOW, 0, 0)),
    ),
    Exemption(
        lambda name: name == "fcmpo" or name.startswith(("xscmpo", "xscmpg", "xvcmpg")),
        "Book I 4.6.8, 7.6.3",
        "a signalling NaN does not set VXVC if VE is 1; QEMU sets VXVC in any case",
        lambda case, qemu: Seen(0, int(FPSCR.VXVC) if before(case, STATUS) & FPSCR.VE else 0, 0),
    ),
    Exemption(
        lambda name: name.startswith(("xs", "xv")) and ("madd" in name or "msub" in name),
        "Book I 7.6.3",
        "infinity times zero raises VXIMZ, and a signalling addend VXSNAN; QEMU the first alone",
        lambda case, qemu: Seen(0, int(FPSCR.VXSNAN) if qemu.fpscr & FPSCR.VXIMZ else 0, 0),
    ),
    Exemption(
        _is("xsnmsubqpo"),
        "Book I 7.6.3",
        "the result is rounded to odd; QEMU rounds it as FPSCR[RN] says",
        _always(_directed_bits),
    ),
    Exemption(
        _is("xsrqpi xsrqpix xsrqpxp"),
        "Book I 7.6.3",
        "if R is 0 and RMC is 3, FPSCR[RN] says how to round; QEMU takes 1 (toward zero) for 3 (down), and "
        "3 for 1",
        _rounded_otherwise,
    ),
    Exemption(
        _to_integers,
        "Book I 7.6.3",
        "each element is converted by itself; QEMU takes all elements behind an invalid one for invalid",
        _after_invalid,
    ),
    Exemption(
        _is("xststdcsp"),
        "Book I 7.6.3",
        "a number that is denormal in the single format is of that class; QEMU says that it is of any class",
        _single_denormal,
    ),
    Exemption(
        _is("fre fres"),
        "Book I 4.6.6.1",
        "an estimate of 1/0 is an infinity; QEMU's is a finite number",
        _divided_by_zero,
    ),
    Exemption(
        _is("mtfsb1"),
        "Book I 4.2.2",
        "an exception bit that changes from 0 to 1 sets FX; QEMU leaves FX alone",
        _always(Seen(0, _FX, _CR1_FX)),
    ),
    Exemption(
        _is("mtfsb1"),
        "Book I 4.6.10",
        "NI can be set; QEMU ignores it",
        _always(Seen(0, int(FPSCR.NI), 0)),
    ),
)


def compared(case: Case, qemu: Seen, ours: Seen) -> str | None:
    """One line that says where a case of ours is not QEMU's although it ought to be, or None."""
    instruction = decode(word(case))
    assert instruction is not None
    wrong = Seen(qemu.target ^ ours.target, qemu.fpscr ^ ours.fpscr, qemu.cr ^ ours.cr)
    for exemption in EXEMPTIONS:
        if exemption.names(instruction.mnemonic):
            bits = exemption.bits(case, qemu)
            wrong = Seen(wrong.target & ~bits.target, wrong.fpscr & ~bits.fpscr, wrong.cr & ~bits.cr)
    if wrong == Seen(0, 0, 0):
        return None
    return f"{_described(instruction, case)}: ours {ours}, QEMU {qemu}, which differ in {wrong}"


def _described(instruction: Instruction, case: Case) -> str:
    places = ((name, before(case, 0x6000 + 16 * n, 16)) for n, name in enumerate("SABCT"))
    operands = " ".join(f"{name}={number:#x}" for name, number in places)
    return f"{instruction.mnemonic} {word(case):#010x} {operands}"


__all__ = ["EXEMPTIONS", "Exemption", "compared"]
