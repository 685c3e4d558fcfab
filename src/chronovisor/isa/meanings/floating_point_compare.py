"""Floating-point comparison, tests and select (Power ISA 3.0B Book I 4.6.8, 4.6.9, 4.6.6.1)."""

from __future__ import annotations

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.ieee.decimal_formats import DecimalFormat
from chronovisor.isa.ieee.formats import BINARY64, Format
from chronovisor.isa.meanings.floating_point_exceptions import (
    interrupt_if_enabled,
    place,
    record,
    take_up,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

FPCC = int(FPSCR.FL | FPSCR.FG | FPSCR.FE | FPSCR.FU)


def related(
    m: Machine, form: Format | DecimalFormat, a: Value, b: Value, ordered: bool
) -> tuple[Value, Value]:
    """The bits LT, GT, EQ and unordered, and what is raised: an ordered comparison refuses every NaN."""
    relation, raised = m.ieee(f"compare {form.name}", a, b)
    if ordered:
        # A signalling NaN is an invalid comparison as well, unless its own exception is enabled.
        enabled = m["FPSCR"].extract(place(FPSCR.VE), 1)
        wrong = relation.extract(0, 1) & ~((raised & int(FPSCR.VXSNAN)).ne(0) & enabled)
        raised = raised | (wrong.zext(64) << place(FPSCR.VXVC))
    return relation, raised


def compare(m: Machine, form: Format | DecimalFormat, BF: Value, a: Value, b: Value, ordered: bool) -> None:
    """CR field BF and FPCC become LT, GT, EQ or unordered."""
    relation, raised = related(m, form, a, b, ordered)
    old = m["FPSCR"]
    m["FPSCR"] = compared = (old & ~FPCC) | (relation.zext(64) << place(FPSCR.FU))
    take_up(m, compared, raised)
    m.cr[BF] = relation
    interrupt_if_enabled(m)


@meaning("fcmpu")
def fcmpu(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
    compare(m, BINARY64, BF, m.fpr[FRA], m.fpr[FRB], ordered=False)


@meaning("fcmpo")
def fcmpo(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
    compare(m, BINARY64, BF, m.fpr[FRA], m.fpr[FRB], ordered=True)


@meaning("fsel")
def fsel(m: Machine, FRT: Value, FRA: Value, FRC: Value, FRB: Value, Rc: int) -> None:
    a = m.fpr[FRA]
    magnitude = a & (BINARY64.sign - 1)
    # Not below zero: -0 is not.
    wanted = magnitude.eq(0) | (~a.extract(63, 1) & ~magnitude.ugt(BINARY64.infinity))
    m.fpr[FRT] = m.select(wanted, m.fpr[FRC], m.fpr[FRB])
    record(m, Rc)


class _Number:
    """What the tests for software division and square root look at."""

    def __init__(self, form: Format, bits: Value) -> None:
        magnitude = bits.trunc(form.width - 1)
        biased = magnitude.extract(form.fraction_bits, form.width - form.precision)
        self.negative = bits.extract(form.width - 1, 1)
        self.zero = magnitude.eq(0)
        self.infinite = magnitude.eq(form.infinity)
        self.nan = magnitude.ugt(form.infinity)
        self.tiny = biased.eq(0)
        """Zero or denormal."""
        self.exponent = biased.zext(64) - form.bias
        """Unbiased, signed; of a denormal one less than that of the smallest normal number."""


def _at_most(exponent: Value, limit: int) -> Value:
    return exponent.slt(limit + 1)


def divide_flags(form: Format, a: Value, b: Value) -> tuple[Value, Value]:
    """FE: a division by software needs more care; FG: it cannot do without another way (1 bit each)."""
    x, y = _Number(form, a), _Number(form, b)
    difference = x.exponent - y.exponent
    low, high = form.smallest_exponent, form.bias
    special = x.infinite | y.infinite | y.zero
    risky = _at_most(y.exponent, low) | ~_at_most(y.exponent, high - 3)
    far = ~_at_most(difference, high - 1) | _at_most(difference, low + 1)
    far = far | _at_most(x.exponent, low + form.fraction_bits)
    return special | x.nan | y.nan | risky | (~x.zero & far), x.infinite | y.infinite | y.tiny


def square_root_flags(form: Format, b: Value) -> tuple[Value, Value]:
    """FE and FG of a square root by software, as for a division."""
    y = _Number(form, b)
    small = _at_most(y.exponent, form.smallest_exponent + form.fraction_bits)
    return y.nan | y.infinite | y.zero | y.negative | small, y.infinite | y.tiny


def test_result(m: Machine, flags: tuple[Value, Value]) -> Value:
    """The condition field of such a test."""
    fe, fg = flags
    return m.concat(m.value(1, 1), fg, fe, m.value(0, 1))


@meaning("ftdiv")
def ftdiv(m: Machine, BF: Value, FRA: Value, FRB: Value) -> None:
    m.cr[BF] = test_result(m, divide_flags(BINARY64, m.fpr[FRA], m.fpr[FRB]))


@meaning("ftsqrt")
def ftsqrt(m: Machine, BF: Value, FRB: Value) -> None:
    m.cr[BF] = test_result(m, square_root_flags(BINARY64, m.fpr[FRB]))
