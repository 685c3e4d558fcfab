"""What came of a Linux guest's moves, on whichever hypervisor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from chronovisor.cli.demo.linux.guest import Wakings
from chronovisor.report.clock_check.report import Report
from chronovisor.timebase.record import MoveRecord

MOVES: Final = 8
SAMPLES: Final = 10
"""The checker's lines that are awaited on each host."""
BOOT_SECONDS: Final = 180.0
"""Patience with a boot; where code is compiled first, or much else runs, it takes longer."""


@dataclass(frozen=True, slots=True)
class LinuxJourney:
    """A guest's moves, and what its checker and `cyclictest` saw."""

    boot_seconds: float
    """From the start to the checker's first lines."""
    errors_ms: Sequence[float]
    """The guest's CLOCK_MONOTONIC less the machine's clock: 0 before the first move, then after each."""
    downtimes_ms: Sequence[float]
    """How long each move stopped the guest, as its hypervisor says."""
    report: Report
    wakings: Sequence[Wakings]
    """What each thread of `cyclictest` saw; none if the guest could not be asked."""
    records: Sequence[MoveRecord] = ()
    """What our moves say of themselves."""
    silent: bool = False
    """Whether the guest fell silent after the last of these moves."""

    @property
    def moves(self) -> int:
        """How many moves were made."""
        return len(self.downtimes_ms)

    @property
    def median_downtime_ms(self) -> float:
        """The median of the downtimes."""
        return median(self.downtimes_ms)
