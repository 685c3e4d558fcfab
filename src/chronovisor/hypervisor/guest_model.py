"""What guests are given on each kind of processor: the rules of KVM for LPCR, compatibility and `sc 1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.isa.bits import LPCR
from chronovisor.processor.cpu_model import POWER8, POWER9, PPC970

_DPFD: Final = 7 << 52
_LPCR_GUEST: Final = (4 << 52) | int(LPCR.ONL | LPCR.PECE) | (1 << 15) | int(LPCR.LPES & ~4)


@dataclass(frozen=True, slots=True)
class GuestModel:
    """The rules for guests on one kind of processor."""

    lpcr: int
    """LPCR of a new virtual core."""
    lpcr_writable: int
    """The bits of LPCR that user space may change; AIL as a whole, to 0 or 3 only."""
    reflects_user_hypercall: bool
    """`sc 1` in problem state becomes the guest's system call interrupt; otherwise a privileged program
    interrupt.
    """
    compatible: tuple[int, ...]
    """Logical processor versions that a guest can be told to be compatible with (KVM's ARCH_COMPAT)."""


_ISA_205, _ISA_206, _ISA_206P, _ISA_207, _ISA_300 = 0x0F000002, 0x0F000003, 0x0F100003, 0x0F000004, 0x0F000005

GUEST_MODELS: Final = {
    POWER9.name: GuestModel(
        lpcr=0x0040_0000_0054_F41F,
        lpcr_writable=_DPFD | int(LPCR.ILE | LPCR.AIL | LPCR.LD),
        reflects_user_hypercall=False,
        compatible=(_ISA_205, _ISA_206, _ISA_206P, _ISA_207, _ISA_300),
    ),
    POWER8.name: GuestModel(
        # Virtual page class keys (VPM0, VPM1) are on, and the bits that every guest has.
        lpcr=(3 << 62) | _LPCR_GUEST | int(LPCR.HDICE),
        lpcr_writable=_DPFD | int(LPCR.ILE | LPCR.AIL | LPCR.TC),
        reflects_user_hypercall=True,
        compatible=(_ISA_205, _ISA_206, _ISA_206P, _ISA_207),
    ),
    PPC970.name: GuestModel(lpcr=0, lpcr_writable=0, reflects_user_hypercall=True, compatible=()),
}
"""The rules by the processor's name."""
