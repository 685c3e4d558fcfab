"""The kinds of processor that a machine can have, as far as its time facilities and threads differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.timebase.decrementer import DecWidth


@dataclass(frozen=True, slots=True)
class CpuModel:
    """A kind of processor."""

    name: str
    pvr: int
    """Processor version register, 32 bits."""
    has_tbu40: bool
    """Whether the processor has the register TBU40, the only way to move a timebase."""
    independent_threads: bool
    """Whether each thread of a core has a timebase of its own. Otherwise the threads share one."""
    max_threads: int
    """The most hardware threads that a core can have."""
    large_decrementer: DecWidth
    """Bits of DEC if LPCR[LD] is 1; 32 if the processor has no such mode."""


POWER9: Final = CpuModel(
    name="power9",
    pvr=0x4E1200,
    has_tbu40=True,
    independent_threads=True,
    max_threads=4,
    large_decrementer=56,
)

POWER8: Final = CpuModel(
    name="power8",
    pvr=0x4D0200,
    has_tbu40=True,
    independent_threads=False,
    max_threads=8,
    large_decrementer=32,
)

PPC970: Final = CpuModel(
    name="ppc970",
    pvr=0x390202,
    has_tbu40=False,
    independent_threads=False,
    max_threads=1,
    large_decrementer=32,
)
"""A processor older than TBU40, which came with POWER6: no software can move its timebase."""

CPU_MODELS: Final = {model.name: model for model in (POWER9, POWER8, PPC970)}
