"""Moves from and to the floating-point status and control register (Power ISA 3.0B Book I 4.2.2, 4.6.10)."""

from __future__ import annotations

from typing import Final

from chronovisor.isa.facilities.rows import meaning
from chronovisor.isa.meanings.floating_point_storage import record
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Value

_INVALID: Final = 0x01F8_0700
"""VXSNAN, VXISI, VXIDI, VXZDZ, VXIMZ, VXVC, VXSOFT, VXSQRT and VXCVI: the kinds of invalid operation."""
_FEX, _VX = 1 << 30, 1 << 29
_SUMMARIES: Final = _FEX | _VX
_WRITABLE: Final = 0x7_FFFF_F7FF & ~_SUMMARIES
"""The bits that moves change: DRN and the lower half, without what is reserved and what sums others up."""


def summarized(m: Machine, fpscr: Value) -> Value:
    """FPSCR with FEX and VX as the other bits have them."""
    invalid = (fpscr & _INVALID).ne(0)
    # OX, UX, ZX and XX lie above their enable bits OE, UE, ZE and XE; VE stands beside them.
    enabled = (fpscr >> 25) & (fpscr >> 3) & 0xF
    enabled_invalid = invalid & fpscr.extract(7, 1)
    summary = (enabled.ne(0) | enabled_invalid).zext(64) << 30 | invalid.zext(64) << 29
    return (fpscr & ~_SUMMARIES) | summary


@meaning("mffs")
def mffs(m: Machine, FRT: Value, Rc: int) -> None:
    m.fpr[FRT] = m["FPSCR"]
    record(m, Rc)


@meaning("mtfsf")
def mtfsf(m: Machine, FLM: Value, FRB: Value, L6: Value, W: Value, Rc: int) -> None:
    # Each bit of FLM selects a field of four bits, in the upper half of the register if W is 1.
    fields = m.value(0)
    for number in range(8):
        fields = fields | m.select(FLM.extract(number, 1), 0xF << (4 * number), 0)
    selected = m.select(L6.ne(0), (1 << 64) - 1, fields << (W << 5)) & _WRITABLE
    m["FPSCR"] = summarized(m, (m["FPSCR"] & ~selected) | (m.fpr[FRB] & selected))
    record(m, Rc)
