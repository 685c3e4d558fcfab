"""What arithmetic does to FPSCR, and when it ends in an interrupt (Power ISA 3.0B Book I 4.2.2, 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chronovisor.isa.bits import FPSCR, MSR, ProgramCause
from chronovisor.isa.ieee.formats import Format
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

INVALID: Final = int(
    (FPSCR.VXSNAN | FPSCR.VXISI | FPSCR.VXIDI | FPSCR.VXZDZ | FPSCR.VXIMZ | FPSCR.VXVC)
    | (FPSCR.VXSOFT | FPSCR.VXSQRT | FPSCR.VXCVI)
)
"""The kinds of invalid operation."""

EXCEPTIONS: Final = INVALID | int(FPSCR.OX | FPSCR.UX | FPSCR.ZX | FPSCR.XX)
"""The bits that stay until software clears them, without FX."""

SUMMARIES: Final = int(FPSCR.FEX | FPSCR.VX)
"""The bits that only sum others up."""

FPRF: Final = int(FPSCR.C | FPSCR.FL | FPSCR.FG | FPSCR.FE | FPSCR.FU)
"""The class of the last result."""


def place(bit: FPSCR) -> int:
    """The number of a bit, counted from the least significant."""
    return int(bit).bit_length() - 1


def summarized(m: Machine, fpscr: Value) -> Value:
    """FPSCR with FEX and VX as the other bits have them."""
    invalid = (fpscr & INVALID).ne(0)
    # OX, UX, ZX and XX lie above their enable bits OE, UE, ZE and XE; VE stands beside them.
    enabled = (fpscr >> 25) & (fpscr >> 3) & 0xF
    enabled_invalid = invalid & fpscr.extract(place(FPSCR.VE), 1)
    summary = (enabled.ne(0) | enabled_invalid).zext(64) << 30 | invalid.zext(64) << 29
    return (fpscr & ~SUMMARIES) | summary


def with_exceptions(m: Machine, fpscr: Value, raised: Value) -> Value:
    """FPSCR with exceptions that an instruction raises, FX among them if one of them is new."""
    new = raised & EXCEPTIONS
    first = (new & ~fpscr).ne(0)
    return summarized(m, fpscr | new | (first.zext(64) << place(FPSCR.FX)))


def suppressed(m: Machine, raised: Value) -> Value:
    """1 bit: an invalid operation or a division by zero is enabled, so that the target stays as it is."""
    fpscr = m["FPSCR"]
    invalid = (raised & INVALID).ne(0) & fpscr.extract(place(FPSCR.VE), 1)
    by_zero = (raised & int(FPSCR.ZX)).ne(0) & fpscr.extract(place(FPSCR.ZE), 1)
    return invalid | by_zero


def interrupt_if_enabled(m: Machine) -> None:
    """End in a program interrupt if an enabled exception is there and MSR lets it interrupt (4.4)."""
    with m.when((m["FPSCR"] & int(FPSCR.FEX)).ne(0)), m.when((m["MSR"] & int(MSR.FE0 | MSR.FE1)).ne(0)):
        m.interrupt("PROGRAM", int(ProgramCause.FP_ENABLED))


def interrupt_if_let_in(m: Machine, msr: Value) -> None:
    """End a change of MSR, to ``msr``, in a program interrupt if it lets an enabled exception interrupt that
    is there already (Book III 6.5.9). Execution would go on at the address in SRR0.
    """
    with m.when((msr & int(MSR.FE0 | MSR.FE1)).ne(0)), m.when((m["FPSCR"] & int(FPSCR.FEX)).ne(0)):
        m.interrupt("DELAYED_PROGRAM", int(ProgramCause.FP_ENABLED | ProgramCause.LATER))


def record(m: Machine, Rc: int) -> None:
    """Rc: CR field 1 becomes FX, FEX, VX and OX of FPSCR."""
    if Rc:
        m.cr[1] = m["FPSCR"].extract(28, 4)


def result_class(m: Machine, form: Format, precision: Format, result: Value) -> Value:
    """FPRF of a result, 64 bits, in its place (4.2.2, "Floating-Point Result Flags").

    A result is denormal if it is one in the format to whose range it was rounded.
    """
    negative = result.extract(form.width - 1, 1)
    magnitude = result.trunc(form.width - 1)
    smallest_normal = precision.smallest_exponent + form.bias << form.fraction_bits
    more, less, unlike = int(FPSCR.FG), int(FPSCR.FL), int(FPSCR.C)
    sign = m.select(negative, less, more)
    zero = m.select(negative, int(FPSCR.FE) | unlike, int(FPSCR.FE))
    tiny = m.select(magnitude.eq(0), zero, sign | unlike)
    huge = m.select(magnitude.eq(form.infinity), sign | int(FPSCR.FU), int(FPSCR.FU) | unlike)
    finite = m.select(magnitude.ult(smallest_normal), tiny, sign)
    return m.select(magnitude.ult(form.infinity), finite, huge)


def take_up(m: Machine, fpscr: Value, raised: Value) -> None:
    """FPSCR takes up what was raised. Nothing changes unless that is new, which is rare."""
    with m.when((raised & EXCEPTIONS & ~fpscr).ne(0)):
        m["FPSCR"] = with_exceptions(m, fpscr, raised)


def finish_without_flags(m: Machine, raised: Value, write: Callable[[], None]) -> None:
    """End an instruction that leaves FR, FI and FPRF alone: exceptions, the target, interrupt."""
    stays = suppressed(m, raised)
    take_up(m, m["FPSCR"], raised)
    with m.when(~stays):
        write()
    interrupt_if_enabled(m)


def finish(
    m: Machine, raised: Value, write: Callable[[], None], flags: Value | None = None, Rc: int = 0
) -> None:
    """End a scalar instruction that computed: FR, FI, exceptions, FPRF, the target, CR field 1, interrupt.

    ``flags`` becomes FPRF; None leaves FPRF alone. ``write`` puts the result into the target, which does not
    happen if an enabled exception forbids it.
    """
    stays = suppressed(m, raised)
    old = m["FPSCR"]
    changes = (old & ~int(FPSCR.FR | FPSCR.FI)) | (raised & int(FPSCR.FR | FPSCR.FI))
    if flags is not None:
        changes = m.select(stays, changes, (changes & ~FPRF) | flags)
    m["FPSCR"] = changes
    take_up(m, changes, raised)
    with m.when(~stays):
        write()
    record(m, Rc)
    interrupt_if_enabled(m)
