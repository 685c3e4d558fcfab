"""The order in which a guest is put together again: memory and registers, the clock, the decrementers'
deadlines; then it may run.

Each step is an object that is made of the one before alone and is spent by the next, so there is no way to
let a vCPU run before its deadline is set, nor to set a deadline before the clock that it is counted by. A
deadline that came first would be moved by the clock's setting; a vCPU that ran first would read the time of
its new host.
"""

from __future__ import annotations

from collections.abc import Sequence

from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine.guest import Guest, MachineState
from chronovisor.migration import vcpu_state
from chronovisor.migration.errors import RestorationError
from chronovisor.migration.vcpu_state import VcpuState
from chronovisor.timebase.types import Offset


class _Step:
    """A guest on its way, and what its vCPUs were when they were saved."""

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
        """Give every vCPU the offset, and with it the time of day; the deadlines are next.

        RestorationError where one of them keeps another, KvmError where the provider refuses it.
        """
        guest = self._spend()
        for vcpu in guest.vcpus:
            write_register(vcpu, "TB_OFFSET", offset.value)
            kept = read_register(vcpu, "TB_OFFSET")
            if kept != offset.value:
                raise RestorationError(f"offset {offset.value:#x} was set and {kept:#x} kept")
        # The time of day goes on by the same record.
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

    KvmError, naming the register, where one is refused; ValueError where there are more or fewer vCPUs.
    """
    guest.machine_state = machine
    for vcpu, state in zip(guest.vcpus, saved, strict=True):
        vcpu_state.load(vcpu, state)
    return Loaded(guest, saved)
