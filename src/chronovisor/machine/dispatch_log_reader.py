"""Reading a guest's dispatch trace log in the guest's memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from chronovisor.kvm.interface import Vcpu
from chronovisor.kvm.registers import read_register
from chronovisor.machine.errors import MachineError
from chronovisor.memory import AddressError, GuestMemory
from chronovisor.papr.dispatch_log import DispatchLog, LogFormatError, read_ring
from chronovisor.papr.vpa import VPA_DTL_INDEX

_ATTEMPTS: Final = 5
"""How often a log that was overwritten while it was read is read again before the guest is stopped for it."""


class LoggingGuest(Protocol):
    """The guest whose logs are read."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def memory(self) -> GuestMemory:
        """Its memory, in which the logs are."""

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """Its vCPUs."""

    @property
    def running(self) -> bool:
        """Whether it runs."""

    def held(self) -> AbstractContextManager[object]:
        """Keep it paused for as long as the block lasts."""


def vcpus_with_log(guest: LoggingGuest) -> list[int]:
    """Return the ids of the vCPUs for which the guest has registered a dispatch trace log.

    A running guest is paused for a moment.
    """
    with guest.held():
        return [vcpu.id for vcpu in guest.vcpus if read_register(vcpu, "VPA_DTL")]


def read_dispatch_log(
    guest: LoggingGuest, vcpu: Vcpu, start: int = 0, count: int | None = None
) -> DispatchLog:
    """Return what the dispatch trace log of one of the guest's vCPUs holds now.

    `count` entries at most from number `start` on, or from the oldest that is left; no others are read. A
    running guest is paused for a moment, to find its log, which makes one more entry in it; the log is
    read while it runs. MachineError if none is registered, or if it lies outside memory.
    """
    with guest.held():
        ring = _registered(guest, vcpu)
    try:
        for _ in range(_ATTEMPTS if guest.running else 0):
            if (log := read_ring(ring.read, ring.length, ring.index, start, count)) is not None:
                return log
        with guest.held():
            log = read_ring(ring.read, ring.length, ring.index, start, count, standing=True)
            assert log is not None, "nobody writes to the log of a guest that is held"
            return log
    except (AddressError, LogFormatError) as error:
        raise MachineError(f"{guest.name}: the dispatch trace log of vCPU {vcpu.id}: {error}") from None


class _Ring:
    """The place of a log in memory, and of its index."""

    def __init__(self, memory: GuestMemory, address: int, length: int, vpa: int) -> None:
        self._memory, self._address, self.length, self._vpa = memory, address, length, vpa

    def read(self, at: int, size: int) -> bytes:
        return self._memory.read(self._address + at, size)

    def index(self) -> int:
        field = VPA_DTL_INDEX
        return self._memory.load(self._vpa + field.offset, field.size, little=False)


def _registered(guest: LoggingGuest, vcpu: Vcpu) -> _Ring:
    log = read_register(vcpu, "VPA_DTL")
    if not log:
        raise MachineError(
            f"{guest.name}: no dispatch trace log is registered for vCPU {vcpu.id}: the guest does that by "
            "H_REGISTER_VPA"
        )
    return _Ring(guest.memory, log >> 64, log & ((1 << 64) - 1), read_register(vcpu, "VPA_ADDR"))
