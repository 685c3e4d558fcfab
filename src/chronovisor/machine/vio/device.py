"""What all virtual devices of a guest have: a unit address, an interrupt source, a window into its memory."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chronovisor.machine.vio.dma_window import ENTRIES, WINDOW_SIZE, DmaWindow
from chronovisor.memory import GuestMemory
from chronovisor.memory.gate import WORDS as GATE_WORDS
from chronovisor.memory.gate import Gate, Place
from chronovisor.memory.word_queue import WORDS
from chronovisor.memory.words import words
from chronovisor.papr.hcalls import Status

FIRST_UNIT: Final = 0x7100_0000
_FIRST_SOURCE: Final = 0x1100
"""Of the console, which is the first unit."""
_WINDOWS: Final = 1 << 31
"""A window is named by its device's unit with this bit: the LIOBN of the TCE hypercalls."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a device reaches of its machine."""

    memory: GuestMemory
    changed: Callable[[int, int], None]
    """Told of memory that the device has written: a real address and a size."""
    interrupt: Callable[[int], None]
    """Sends an interrupt of a source; from any thread."""
    virtual: bool
    """Whether the machine is in virtual time: the device then does everything within the call that asks."""
    tell: Callable[[str], None]
    """Told in a line, for people, of what goes wrong outside the guest; on any thread."""
    tce_table: Callable[[int, int], memoryview] = lambda _liobn, entries: words(entries)
    """Makes a window's table (`kvm.interface.Vm.tce_table`)."""
    signal_mode: Callable[[int], memoryview] = lambda _unit: words(1)
    """Makes what H_VIO_SIGNAL sets (`kvm.interface.Vm.signal_mode`)."""
    lan_buffers: Callable[[int], memoryview] = lambda _unit: words(WORDS)
    """Makes the queue of a network card's buffers (`kvm.interface.Vm.lan_buffers`)."""
    gate: Callable[[int], memoryview] = lambda _unit: words(GATE_WORDS)
    """Makes the words of a device's gate (`kvm.interface.Vm.gate`)."""
    idle_gate: Callable[[], memoryview] = lambda: words(GATE_WORDS)
    """Makes those of the gate by which idle vCPUs receive frames (`kvm.interface.Vm.idle_gate`)."""


class VioDevice(ABC):
    """A virtual device. Its methods but `interrupt` are called by one thread at a time."""

    kind: str
    """What the device tree calls it."""
    device_type: str
    """The node's `device_type`."""
    compatible: str
    """By which the guest finds its driver."""

    def __init__(self, unit: int, around: Surroundings) -> None:
        self.unit = unit
        """Its address on the bus."""
        self.source = source_of(unit)
        """The number of its interrupt source."""
        table = around.tce_table(self.window_number, ENTRIES)
        self.window = DmaWindow(around.memory, around.changed, table)
        self.around = around
        self._signal_mode = around.signal_mode(unit)
        self._ordering = threading.Lock()
        self.gate = Gate(around.gate(unit))
        """By which hypercalls serve the guest while it is open."""
        self.gate.words[Place.WINDOW], self.gate.words[Place.SOURCE] = self.window_number, self.source

    @property
    def signals(self) -> bool:
        """Whether it may interrupt the guest (H_VIO_SIGNAL)."""
        return bool(self._signal_mode[0])

    @signals.setter
    def signals(self, signals: bool) -> None:
        self._signal_mode[0] = signals

    @property
    def window_number(self) -> int:
        """The LIOBN of its window."""
        return self.unit | _WINDOWS

    @property
    def dma_window(self) -> tuple[int, ...]:
        """The words of `ibm,my-dma-window`: the window's number, its first I/O address, its size."""
        return (self.window_number, 0, 0, 0, WINDOW_SIZE)

    def properties(self) -> Mapping[str, bytes]:
        """Return what the device tree says of it besides what it says of all."""
        return {}

    def interrupt(self) -> None:
        """Interrupt the guest if it wishes so. From any thread."""
        # Taking a lock orders this thread's accesses: who allows interrupts too late for this look sees what
        # the device has stored.
        with self._ordering:
            pass
        if self.signals:
            self.around.interrupt(self.source)

    def reset(self) -> None:
        """Be as when the machine is switched on. No vCPU runs."""
        self.pause()
        self.signals = False
        self.window.clear()

    @abstractmethod
    def pause(self) -> None:
        """Finish what was begun, and touch the guest no more until `resume`. No vCPU runs."""

    @abstractmethod
    def resume(self) -> None:
        """Go on. MachineError if what is outside the guest is not there any more."""

    @abstractmethod
    def take(self) -> None:
        """Have what is outside the guest for this guest alone; MachineError if another has it. Repeatable."""

    @abstractmethod
    def flush(self) -> None:
        """Have what is outside the guest up to date; MachineError if that fails. From any thread."""

    @abstractmethod
    def give_up(self) -> None:
        """Let another process have what `take` took, up to date. The device is paused."""

    @abstractmethod
    def save(self) -> Any:
        """Return its state as moves and snapshots carry it: a value with its `unit`. It is paused."""

    @abstractmethod
    def load(self, state: Any) -> None:
        """Go on from a saved state. MachineError if it is that of another device, ValueError if of none."""

    @abstractmethod
    def check_unchanged(self, state: Any) -> None:
        """MachineError if what is outside the guest was changed since it was saved."""

    @abstractmethod
    def describe(self) -> str:
        """Return what it is, for people, with its article."""

    @abstractmethod
    def close(self) -> None:
        """Give up everything; it is not used again. Repeatable."""


class QueueDevice(VioDevice):
    """A device that exchanges messages of 16 bytes with the guest, through a queue of the guest's (CRQ)."""

    @abstractmethod
    def register_queue(self, address: int, size: int) -> Status:
        """H_REG_CRQ: send messages into a queue at an I/O address."""

    @abstractmethod
    def free_queue(self) -> Status:
        """H_FREE_CRQ: the queue is gone."""

    @abstractmethod
    def send(self, message: bytes) -> Status:
        """H_SEND_CRQ: a message of the guest's."""


def source_of(unit: int) -> int:
    """Return the number of a unit's interrupt source."""
    return _FIRST_SOURCE + unit - FIRST_UNIT
