"""Hypervisor maintenance interrupts: what happens when the timebase of a core fails.

The interrupt comes to all threads of the core, before the next instruction of a guest: they leave, as for any
exit. When all are out the guest's offset is taken away, so that the repair does not see it. Then the core's
timebase is loaded from the host's clock, and the next entry adds the offset again. Other cores go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chronovisor.hypervisor.run_queue import RunQueue
from chronovisor.hypervisor.scheduler import Scheduler
from chronovisor.processor.core import Core
from chronovisor.timebase.facility import Hmer, Tfmr, require_tb_errors
from chronovisor.timebase.trace import Observer, TimebaseReloaded
from chronovisor.timebase.types import HostTime, Ticks


class Maintained(Protocol):
    """The host whose cores are repaired."""

    scheduler: Scheduler
    observer: Observer | None

    @property
    def cores(self) -> Sequence[Core]:
        """Its cores, by number."""

    @property
    def run_queue(self) -> RunQueue:
        """Which stay each core has."""


class Maintenance:
    """The maintenance interrupts of one host."""

    def __init__(self, host: Maintained) -> None:
        self._host = host

    # How they are raised

    def fail_timebase(self, core: int, damage: Ticks, errors: Tfmr = Tfmr.MISSING_SYNC) -> None:
        """Make the timebase of the core with this number wrong by `damage` from now on; hardware notices it
        as `errors`. From any thread, also from an alarm of a virtual clock.

        Raises IndexError for a core that does not exist, ValueError for what is no error of a timebase.
        """
        failing = self._core(core)
        require_tb_errors(errors)
        with self._host.scheduler.monitor:
            failing.fail_timebase(errors, damage)
            self._interrupt(failing)

    def trigger_debug(self, core: int) -> None:
        """Raise the interrupt on the core with this number for a cause that leaves its timebase alone.

        Raises IndexError for a core that does not exist.
        """
        triggered = self._core(core)
        with self._host.scheduler.monitor:
            triggered.hmer |= Hmer.DEBUG_TRIGGER
            self._interrupt(triggered)

    # How they are handled

    def handle(self, core: Core) -> None:
        """Repair what the interrupt was raised for. Under the host's monitor, with no thread in the guest.

        T may be anything, but must not carry a guest's offset: an exit would take the offset away from the
        repaired time. If the timebase did not fail it is left alone.
        """
        core.hmer = 0
        errors = core.facility.errors
        if not errors:
            return
        for step in (Tfmr.CLEAR_TB_ERRORS, Tfmr.LOAD_TOD_MOD, Tfmr.MOVE_CHIP_TOD_TO_TB):
            core.facility.write_tfmr(step)
        if self._host.observer is not None:
            self._host.observer(TimebaseReloaded(core.number, errors, HostTime(core.timebase.read())))

    def _interrupt(self, core: Core) -> None:
        stay = self._host.run_queue.stays[core.number]
        if stay is None or stay.host_timebase is not None:
            self.handle(core)
        else:
            # The last thread out finds the cause.
            stay.leave_soon()
            self._host.scheduler.changed()

    def _core(self, number: int) -> Core:
        cores = self._host.cores
        if not 0 <= number < len(cores):
            raise IndexError(f"core {number}: this host has the cores 0 to {len(cores) - 1}")
        return cores[number]
