"""What kinds of processor a host can have: properties of the chip that the hypervisor's behaviour depends
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.isa.bits import LPCR
from chronovisor.timebase.decrementer import DecWidth

_DPFD: Final = 7 << 52
_LPCR_GUEST: Final = 4 << 52 | int(LPCR.ONL | LPCR.PECE) | 1 << 15 | int(LPCR.LPES & ~4)


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A processor, as far as a hypervisor on it and its register interface can tell."""

    name: str
    pvr: int
    """Processor version register, 32 bits."""
    has_tbu40: bool
    """Without the register TBU40 a guest's timebase cannot differ from the host's."""
    independent_threads: bool
    """Each thread has a timebase of its own and can run a virtual core by itself, so every vCPU is one,
    whatever threads per core it is told of.

    Else the threads of a core run the vCPUs of one virtual core together.
    """
    max_threads: int
    """Hardware threads that a core can have."""
    large_decrementer: DecWidth
    """Bits of DEC where LPCR[LD] is 1; 32 where the processor has no such mode."""
    lpcr: int
    """LPCR of a new virtual core."""
    lpcr_writable: int
    """The bits of LPCR that user space may change; AIL as a whole, to 0 or 3 only."""
    reflects_user_hypercall: bool
    """`sc 1` in problem state becomes the guest's system call interrupt; else a privileged program interrupt.
    """
    compatible: tuple[int, ...]
    """Logical processor versions that a guest can be told to be compatible with (KVM's ARCH_COMPAT)."""


_ISA_205, _ISA_206, _ISA_206P, _ISA_207, _ISA_300 = 0x0F000002, 0x0F000003, 0x0F100003, 0x0F000004, 0x0F000005

POWER9: Final = CpuModel(
    name="power9",
    pvr=0x4E1200,
    has_tbu40=True,
    independent_threads=True,
    max_threads=4,
    large_decrementer=56,
    lpcr=0x0040_0000_0054_F41F,
    lpcr_writable=_DPFD | int(LPCR.ILE | LPCR.AIL | LPCR.LD),
    reflects_user_hypercall=False,
    compatible=(_ISA_205, _ISA_206, _ISA_206P, _ISA_207, _ISA_300),
)

POWER8: Final = CpuModel(
    name="power8",
    pvr=0x4D0200,
    has_tbu40=True,
    independent_threads=False,
    max_threads=8,
    large_decrementer=32,
    # Virtual page class keys (VPM0, VPM1) on, and what every guest has.
    lpcr=3 << 62 | _LPCR_GUEST | int(LPCR.HDICE),
    lpcr_writable=_DPFD | int(LPCR.ILE | LPCR.AIL | LPCR.TC),
    reflects_user_hypercall=True,
    compatible=(_ISA_205, _ISA_206, _ISA_206P, _ISA_207),
)

PPC970: Final = CpuModel(
    name="ppc970",
    pvr=0x390202,
    has_tbu40=False,
    independent_threads=False,
    max_threads=1,
    large_decrementer=32,
    lpcr=0,
    lpcr_writable=0,
    reflects_user_hypercall=True,
    compatible=(),
)
"""The processor before TBU40 (which came with POWER6): its guests share the host's timebase."""

CPU_MODELS: Final = {model.name: model for model in (POWER9, POWER8, PPC970)}
