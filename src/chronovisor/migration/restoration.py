"""The order in which a guest is restored: memory and registers, the clock, the decrementers' deadlines; then
it may run.

Each step is an object that can be made only from the step before it, which it uses up. So no vCPU can run
before its deadline is set, and no deadline can be set before the clock that counts towards it. Setting the
clock would shift a deadline that was set earlier, and a vCPU that ran earlier would read its new host's time.
"""

from __future__ import annotations

from collections.abc import Sequence

from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine import vcpu_state
from chronovisor.machine.guest import Guest
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.migration.errors import RestorationError
from chronovisor.timebase.types import Offset


class _Step:
    """A guest that is being restored, and the saved state of its vCPUs."""

    def __init__(self, guest: Guest, saved: Sequence[VcpuState]) -> None:
        self._guest: Guest | None = guest
        self._saved = saved

    def _spend(self) -> Guest:
        guest, self._guest = self._guest, None
        if guest is None:
            raise RestorationError("this step was taken already")
        return guest


class Loaded(_Step):
    """A guest that has its memory and all its registers but those of time. `load` makes one."""

    def set_clock(self, offset: Offset) -> Clocked:
        """Set every vCPU's offset, and the time of day that depends on it; the deadlines are next.

        RestorationError if a vCPU keeps another offset, KvmError if the provider refuses it.
        """
        guest = self._spend()
        for vcpu in guest.vcpus:
            write_register(vcpu, "TB_OFFSET", offset.value)
            kept = read_register(vcpu, "TB_OFFSET")
            if kept != offset.value:
                raise RestorationError(f"offset {offset.value:#x} was set and {kept:#x} kept")
        # The time of day continues from the guest's new timebase.
        guest.continue_time_of_day()
        return Clocked(guest, self._saved)


class Clocked(_Step):
    """A guest whose time is set; its decrementers are not. `Loaded.set_clock` makes one."""

    def set_deadlines(self) -> Restored:
        """Set each decrementer to expire at the guest time at which it was to; the guest may run then."""
        guest = self._spend()
        for vcpu, saved in zip(guest.vcpus, self._saved, strict=True):
            write_register(vcpu, "DEC_EXPIRY", saved.dec_expiry)
        return Restored(guest, self._saved)


class Restored(_Step):
    """A guest that is whole. `Clocked.set_deadlines` makes one."""

    def release(self) -> Guest:
        """Hand the guest out, paused: it may run."""
        return self._spend()


def load(guest: Guest, machine: MachineState, saved: Sequence[VcpuState]) -> Loaded:
    """Give `guest`, which has its memory and never ran, its machine's state and its vCPUs' registers.

    KvmError, naming the register, if one is refused; ValueError if the number of vCPUs differs.
    """
    guest.machine_state = machine
    for vcpu, state in zip(guest.vcpus, saved, strict=True):
        vcpu_state.load(vcpu, state)
    return Loaded(guest, saved)
