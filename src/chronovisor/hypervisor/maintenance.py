"""Hypervisor maintenance interrupts: what happens when the timebase of a core fails.

The interrupt comes to all threads of the core, before the next instruction of a guest: they leave, as for any
exit. When all are out their guest's offset is taken away, so that it is no part of what is repaired; then the
core's timebase is loaded from the host's clock; and the next entry adds the offset again. Other cores go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.timebase.facility import Hmer, Tfmr, require_tb_errors
from chronovisor.timebase.trace import TimebaseReloaded
from chronovisor.timebase.types import HostTime, Ticks

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core, Host


class Maintenance:
    """The maintenance interrupts of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    # What raises them

    def fail_timebase(self, core: int, damage: Ticks, errors: Tfmr = Tfmr.MISSING_SYNC) -> None:
        """Have the timebase of the core with this number be wrong by `damage` from now on, and hardware
        notice it as `errors`. From any thread, also from an alarm of a virtual clock.

        Raises IndexError where there is no such core, ValueError for what is no error of a timebase.
        """
        failing = self._core(core)
        require_tb_errors(errors)
        with self._host.scheduler.monitor:
            # The cause first: who reads T without the monitor reads, then looks whether it was right.
            failing.hmer |= Hmer.TFAC_ERROR
            failing.facility.fail(errors, damage)
            self._interrupt(failing)

    def trigger_debug(self, core: int) -> None:
        """Raise the interrupt on the core with this number for a cause that leaves its timebase alone.

        Raises IndexError where there is no such core.
        """
        triggered = self._core(core)
        with self._host.scheduler.monitor:
            triggered.hmer |= Hmer.DEBUG_TRIGGER
            self._interrupt(triggered)

    # How they are handled

    def handle(self, core: Core) -> None:
        """Repair what the interrupt was raised for. Under the host's monitor, with no thread in the guest.

        T may be anything, but carries no guest's offset: whoever took that away later would take it from the
        right time. Where the timebase did not fail it is left alone.
        """
        assert core.applied is None, "a guest's offset is taken away before the timebase is repaired"
        core.hmer = 0
        errors = core.facility.errors
        if not errors:
            return
        for step in (Tfmr.CLEAR_TB_ERRORS, Tfmr.LOAD_TOD_MOD, Tfmr.MOVE_CHIP_TOD_TO_TB):
            core.facility.write_tfmr(step)
        if self._host.observer is not None:
            self._host.observer(TimebaseReloaded(core.number, errors, HostTime(core.timebase.read())))

    def _interrupt(self, core: Core) -> None:
        vcore = core.runs
        if vcore is None or vcore.host_time_restored:
            self.handle(core)
        else:
            # The last thread out finds the cause.
            vcore.leave_soon()
            self._host.scheduler.changed()

    def _core(self, number: int) -> Core:
        if not 0 <= number < len(self._host.cores):
            raise IndexError(f"core {number}: this host has the cores 0 to {len(self._host.cores) - 1}")
        return self._host.cores[number]
