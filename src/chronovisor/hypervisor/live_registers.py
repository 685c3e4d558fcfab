"""The registers whose value moves by itself, as the guest on a hardware thread reads and writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.decrementer import DecWidth
from chronovisor.timebase.types import MASK64

if TYPE_CHECKING:
    from chronovisor.engine.state import ThreadTime
    from chronovisor.hypervisor.host import HardwareThread
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu


class RunningCounter:
    """A register that counts the ticks of the clock while its guest runs (VTB, PURR, SPURR); no offset
    touches it.
    """

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self._value = 0
        self._since: int | None = None

    @property
    def value(self) -> int:
        """Its value now: 64-bit ticks."""
        since = self._since
        return (self._value + (self._source.ticks() - since if since is not None else 0)) & MASK64

    @value.setter
    def value(self, value: int) -> None:
        self._value = value
        if self._since is not None:
            self._since = self._source.ticks()

    def start(self) -> None:
        """Count from now on."""
        self._since = self._source.ticks()

    def stop(self) -> None:
        """Keep the value as it is now."""
        self._value, self._since = self.value, None


class LiveRegisters:
    """The live registers of a vCPU while it runs, by their names in the ISA's table.

    A name that a guest cannot reach (it needs hypervisor state) raises KeyError.
    """

    def __init__(self, vcpu: VirtualCpu) -> None:
        self._vcpu = vcpu
        purr, spurr = vcpu.purr, vcpu.spurr
        self._readers: dict[str, Callable[[], int]] = {
            "TB": self._timebase,
            "TBU": lambda: self._timebase() >> 32,
            "DEC": lambda: self._thread.decrementer.read(self._width),
            "VTB": lambda: vcpu.vcore.vtb.value,
            "PURR": lambda: purr.value,
            "SPURR": lambda: spurr.value,
        }
        self._writers: dict[str, Callable[[int], None]] = {
            "DEC": lambda value: self._thread.decrementer.write(value, self._width),
        }

    def read(self, name: str) -> int:
        """Return the register as it is at the instruction that reads it, unsigned."""
        self._vcpu.account_time()
        return self._readers[name]()

    def write(self, name: str, value: int) -> None:
        """Set the register at the instruction that writes it."""
        self._vcpu.account_time()
        self._writers[name](value)

    def lend(self, time: ThreadTime) -> None:
        """Let native code read TB and keep DEC for a run, from how they stand now."""
        host, thread = self._vcpu.host, self._thread
        virtual = host.source.is_virtual
        time.tb_adjust = (host.clock.origin + thread.core.timebase.adjust) & MASK64
        time.dec_deadline = thread.decrementer.deadline
        time.dec_written = 0
        time.virtual_ticks = host.source.ticks() if virtual else 0
        time.ticks_per_instruction = host.ticks_per_instruction if virtual else 0
        time.pending = int(self._vcpu.pending.external)

    def take_back(self, time: ThreadTime) -> None:
        """Take over what native code did: the time its instructions took, and where it set DEC."""
        self._vcpu.account_time()
        if time.dec_written:
            self._thread.decrementer.write_deadline(time.dec_deadline)

    @property
    def _thread(self) -> HardwareThread:
        thread = self._vcpu.thread
        assert thread is not None, "a guest's instruction runs on a hardware thread"
        return thread

    @property
    def _width(self) -> DecWidth:
        return self._vcpu.decrementer_width

    def _timebase(self) -> int:
        return self._thread.core.timebase.read()
