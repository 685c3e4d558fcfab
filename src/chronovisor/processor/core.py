"""Cores and their hardware threads: the registers of time that each of them has."""

from __future__ import annotations

from chronovisor.timebase.decrementer import Decrementer, DecWidth
from chronovisor.timebase.facility import Hmer, Tfmr, TimerFacility
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import Ticks


class HardwareThread:
    """A hardware thread: the registers that each thread of a core has of its own."""

    def __init__(self, core: Core, number: int, pir: int) -> None:
        self.core = core
        self.number = number
        """Its number within the core."""
        self.pir = pir
        """Its number within the machine."""
        self.decrementer = Decrementer(core.timebase.clock)
        self.dec_width: DecWidth = 32
        """Bits of DEC, which LPCR[LD] selects."""


class Core:
    """The threads that share one timebase, and the facilities of time that they share.

    That is a physical core. On a processor with independent threads it is one thread of a physical core.
    """

    def __init__(self, timebase: CoreTimebase, threads: int) -> None:
        self.number = timebase.core
        self.timebase = timebase
        self.facility = TimerFacility(timebase)
        self.hmer: int = 0
        """Causes of the pending maintenance interrupt (`Hmer`), the same for all threads; 0 if none is
        pending.
        """
        self.hypervisor_decrementer = Decrementer(timebase.clock)
        self.threads = [HardwareThread(self, n, self.number * threads + n) for n in range(threads)]

    def fail_timebase(self, errors: Tfmr, damage: Ticks) -> None:
        """Make the timebase wrong by `damage` and raise the maintenance interrupt for `errors`."""
        # The cause first: code that reads T without a lock reads T, then checks whether T was right.
        self.hmer |= Hmer.TFAC_ERROR
        self.facility.fail(errors, damage)
