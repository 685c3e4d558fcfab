"""Moves from and to the floating-point status and control register (Power ISA 3.0B Book I 4.6.10)."""

from __future__ import annotations

from typing import Final

from chronovisor.isa.bits import FPSCR
from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.floating_point_exceptions import (
    EXCEPTIONS,
    FPRF,
    SUMMARIES,
    interrupt_if_enabled,
    record,
    summarized,
    with_exceptions,
)
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_DECIMAL_ROUNDING: Final = 7 << 32
"""DRN, the decimal rounding mode."""
_ENABLES: Final = int(FPSCR.VE | FPSCR.OE | FPSCR.UE | FPSCR.ZE | FPSCR.XE)
_CONTROLS: Final = _DECIMAL_ROUNDING | _ENABLES | int(FPSCR.NI | FPSCR.RN)
_WRITABLE: Final = (0x7_FFFF_FFFF & ~(1 << 11)) & ~SUMMARIES
"""The bits that moves change: DRN and the lower half, without what is reserved and what sums others up."""


@meaning("mffs")
def mffs(m: Machine, FRT: Value, Rc: int) -> None:
    m.fpr[FRT] = m["FPSCR"]
    record(m, Rc)


@meaning("mffsce")
def mffsce(m: Machine, FRT: Value) -> None:
    m.fpr[FRT] = m["FPSCR"]
    m["FPSCR"] = summarized(m, m["FPSCR"] & ~_ENABLES)


@meaning("mffsl")
def mffsl(m: Machine, FRT: Value) -> None:
    m.fpr[FRT] = m["FPSCR"] & (_CONTROLS | FPRF | int(FPSCR.FR | FPSCR.FI))


def _replace_rounding(m: Machine, FRT: Value, field: int, new: Value) -> None:
    """FRT becomes the controls as they were; a rounding mode, `field`, becomes what `new` has there."""
    old = m["FPSCR"]
    m.fpr[FRT] = old & _CONTROLS
    m["FPSCR"] = (old & ~field) | (new & field)


@meaning("mffscrn")
def mffscrn(m: Machine, FRT: Value, FRB: Value) -> None:
    _replace_rounding(m, FRT, int(FPSCR.RN), m.fpr[FRB])


@meaning("mffscrni")
def mffscrni(m: Machine, FRT: Value, RM: Value) -> None:
    _replace_rounding(m, FRT, int(FPSCR.RN), RM)


@meaning("mffscdrn")
def mffscdrn(m: Machine, FRT: Value, FRB: Value) -> None:
    _replace_rounding(m, FRT, _DECIMAL_ROUNDING, m.fpr[FRB])


@meaning("mffscdrni")
def mffscdrni(m: Machine, FRT: Value, DRM: Value) -> None:
    _replace_rounding(m, FRT, _DECIMAL_ROUNDING, DRM << 32)


def _move_to(m: Machine, selected: Value, new: Value, Rc: int) -> None:
    """The bits of FPSCR that are ones in `selected` become those of `new`."""
    selected = selected & _WRITABLE
    m["FPSCR"] = summarized(m, (m["FPSCR"] & ~selected) | (new & selected))
    record(m, Rc)
    interrupt_if_enabled(m)


@meaning("mtfsf")
def mtfsf(m: Machine, FLM: Value, FRB: Value, L6: Value, W: Value, Rc: int) -> None:
    # Each bit of FLM selects a field of four bits, in the upper half of the register if W is 1.
    fields = m.value(0)
    for number in range(8):
        fields = fields | m.select(FLM.extract(number, 1), 0xF << (4 * number), 0)
    _move_to(m, m.select(L6.ne(0), (1 << 64) - 1, fields << (W << 5)), m.fpr[FRB], Rc)


@meaning("mtfsfi")
def mtfsfi(m: Machine, BF: Value, U: Value, W: Value, Rc: int) -> None:
    shift = ((7 - BF) << 2) + (W << 5)
    _move_to(m, m.value(0xF) << shift, U << shift, Rc)


@meaning("mtfsb0")
def mtfsb0(m: Machine, BTF: Value, Rc: int) -> None:
    m["FPSCR"] = summarized(m, m["FPSCR"] & ~((m.value(1 << 31) >> BTF) & _WRITABLE))
    record(m, Rc)


@meaning("mtfsb1")
def mtfsb1(m: Machine, BTF: Value, Rc: int) -> None:
    bit = (m.value(1 << 31) >> BTF) & _WRITABLE
    # An exception that becomes 1 is one that the instruction raises: FX follows.
    m["FPSCR"] = with_exceptions(m, m["FPSCR"] | (bit & ~EXCEPTIONS), bit)
    record(m, Rc)
    interrupt_if_enabled(m)


@meaning("mcrfs")
def mcrfs(m: Machine, BF: Value, BFA: Value) -> None:
    shift = (7 - BFA) << 2
    old = m["FPSCR"]
    cleared = (m.value(0xF) << shift) & (EXCEPTIONS | int(FPSCR.FX))
    m.cr[BF] = (old >> shift).trunc(4)
    m["FPSCR"] = summarized(m, old & ~cleared)
