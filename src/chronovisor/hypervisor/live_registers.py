"""The registers whose value moves by itself, as the guest on a hardware thread reads and writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chronovisor.engine.state import Undone
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.decrementer import DecWidth
from chronovisor.timebase.types import MASK64

if TYPE_CHECKING:
    from chronovisor.engine.state import ThreadTime
    from chronovisor.hypervisor.host import HardwareThread
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu


class RunTime:
    """The ticks of the clock that pass while a guest runs."""

    __slots__ = ("_before", "_since", "_source")

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self._before = 0
        self._since: int | None = None

    def ticks(self) -> int:
        """Return the ticks up to now."""
        since = self._since
        return self._before if since is None else self._before + self._source.ticks() - since

    def start(self, now: int) -> None:
        """Count from the tick `now` on."""
        self._since = now

    def stop(self, now: int) -> None:
        """Count no more from the tick `now` on."""
        if self._since is not None:
            self._before += now - self._since
            self._since = None


class RunningCounter:
    """A register that counts run time (VTB, PURR, SPURR); no offset touches it."""

    __slots__ = ("_ahead", "_run_time")

    def __init__(self, run_time: RunTime) -> None:
        self._run_time = run_time
        self._ahead = 0

    @property
    def value(self) -> int:
        """Its value now: 64-bit ticks."""
        return (self._run_time.ticks() + self._ahead) & MASK64

    @value.setter
    def value(self, value: int) -> None:
        self._ahead = value - self._run_time.ticks()


class LiveRegisters:
    """The live registers of a vCPU while it runs, by their names in the ISA's table.

    A name that a guest cannot reach (it needs hypervisor state) raises KeyError.
    """

    def __init__(self, vcpu: VirtualCpu) -> None:
        self._vcpu = vcpu
        source = vcpu.host.source
        self._virtual = source if source.is_virtual else None
        self._timebase_ahead = 0
        self._decrementer = vcpu.host.cores[0].threads[0].decrementer
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

    def begin(self, thread: HardwareThread) -> None:
        """Show the time of a thread's core from now on: it is the guest's until the thread has left."""
        self._timebase_ahead = (self._vcpu.host.clock.origin + thread.core.timebase.adjust) & MASK64
        self._decrementer = thread.decrementer

    def lend(self, time: ThreadTime) -> None:
        """Let native code read TB and keep DEC for a run, from how they stand now."""
        time.tb_adjust = self._timebase_ahead
        time.dec_deadline = self._decrementer.deadline
        time.pending = self._vcpu.pending.external
        if self._virtual is not None:
            time.virtual_ticks = self._virtual.ticks()
            time.ticks_per_instruction = self._vcpu.host.ticks_per_instruction

    def take_back(self, time: ThreadTime) -> None:
        """Take over what native code did: the time its instructions took, and where it set DEC."""
        if self._virtual is not None:
            self._vcpu.account_time()
        if time.dec_written:
            time.dec_written = 0
            self._decrementer.write_deadline(time.dec_deadline)

    @property
    def _thread(self) -> HardwareThread:
        thread = self._vcpu.thread
        assert thread is not None, "a guest's instruction runs on a hardware thread"
        return thread

    @property
    def _width(self) -> DecWidth:
        return self._vcpu.decrementer_width

    def _timebase(self) -> int:
        core = self._thread.core
        value = core.timebase.read()
        if core.hmer:
            # The maintenance interrupt comes before this instruction.
            raise Undone
        return value
