"""A host: its clock, its cores and their hardware threads, and what may be replaced to see it fail."""

from __future__ import annotations

import logging
import random
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chronovisor.hypervisor.cpu_model import POWER9, CpuModel
from chronovisor.hypervisor.dispatch_trace_log import DispatchTraceLog
from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.scheduler import scheduler_for
from chronovisor.hypervisor.virtual_core import TIME_SLICE
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.timebase.clock import HostClock, RealTime, TickSource
from chronovisor.timebase.decrementer import Decrementer
from chronovisor.timebase.facility import TimerFacility
from chronovisor.timebase.offset import Applied, Shift, Shifter, Switch, shift
from chronovisor.timebase.tbu40 import CoreTimebase, TimebaseRegister
from chronovisor.timebase.trace import Event, Observer
from chronovisor.timebase.types import LOW_MASK, MASK64

if TYPE_CHECKING:
    from chronovisor.engine.concrete import Stop
    from chronovisor.engine.state import LiveRegisters, Thread
    from chronovisor.hypervisor.virtual_core import VirtualCore
    from chronovisor.memory.guest_memory import GuestMemory

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What runs a guest's instructions: one for each virtual machine."""

    budget: int
    """Instructions that may be executed, where time is real, between two looks at deadlines."""

    def thread(self, live: LiveRegisters) -> Thread:
        """Return a new thread in its reset state."""

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute at most `budget` instructions."""

    def interrupt(self, state: Thread, name: str, cause: int = 0) -> None:
        """Enter an interrupt that came from outside, between two instructions."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a host is made of where it matters to time; others than these show what breaks without the right
    ones.
    """

    shifter: Shifter = shift
    """Moves a core's timebase by an offset, with the check for a wrap of its low 24 bits."""
    world_switch: type[WorldSwitch] = WorldSwitch
    """Brings threads into a guest and out: who is let in when, and which offset is taken away."""
    dispatch_trace_log: type[DispatchTraceLog] = DispatchTraceLog
    """Writes a dispatch into the guest's log, in the guest's time."""
    maintenance: type[Maintenance] = Maintenance
    """Repairs a core whose timebase failed."""
    engine: Callable[[GuestMemory], Engine] | None = None
    """Runs the instructions of a virtual machine with this memory; None: the concrete evaluator."""


class HardwareThread:
    """A hardware thread: what each thread of a core has of its own."""

    def __init__(self, core: Core, number: int) -> None:
        self.core = core
        self.number = number
        self.decrementer = Decrementer(core.host.clock)


class Core:
    """A physical core, or on a processor with independent threads one of these: one timebase for all its
    threads, and the virtual core that it runs.
    """

    def __init__(self, host: Host, number: int, threads: int) -> None:
        self.host = host
        self.number = number
        self.timebase: CoreTimebase = host.switch.timebase(host.clock, number, host.cpu_model.has_tbu40)
        self.facility = TimerFacility(self.timebase)
        self.hmer: int = 0
        """Why a maintenance interrupt is pending (`Hmer`), for all of its threads alike; 0: none is."""
        self.hypervisor_decrementer = Decrementer(host.clock)
        self.threads = [HardwareThread(self, n) for n in range(threads)]
        self.runs: VirtualCore | None = None
        """The virtual core that has the core."""
        self.applied: Applied | None = None
        """What the timebase carries while its threads may run the guest; None in the host."""


class Host:
    """A machine that runs guests.

    `origin` is its timebase (64-bit ticks) where `source` stands at 0. With a virtual source an instruction
    takes `ticks_per_instruction` ticks. The `observer` is told what entries and exits do to time, under the
    host's monitor: it must not wait. Raises ValueError for counts of cores or threads that the model cannot
    have.
    """

    def __init__(
        self,
        source: TickSource,
        origin: int = 0,
        cores: int = 1,
        threads_per_core: int = 1,
        cpu_model: CpuModel = POWER9,
        ticks_per_instruction: int = 256,
        observer: Observer | None = None,
        parts: Parts | None = None,
    ) -> None:
        if cores < 1:
            raise ValueError(f"a host with {cores} cores: it needs at least one")
        if threads_per_core not in (1, 2, 4, 8) or threads_per_core > cpu_model.max_threads:
            raise ValueError(
                f"{threads_per_core} threads per core: a {cpu_model.name} has "
                + " or ".join(str(n) for n in (1, 2, 4, 8) if n <= cpu_model.max_threads)
            )
        if ticks_per_instruction < 1:
            raise ValueError(
                f"an instruction that takes {ticks_per_instruction} ticks: it takes at least one"
            )
        self.cpu_model = cpu_model
        self.clock = HostClock(source, origin & MASK64)
        self.ticks_per_instruction = ticks_per_instruction
        self.observer: Observer | None = None if observer is None else self._guarded(observer)
        self.parts = parts if parts is not None else Parts()
        self.scheduler = scheduler_for(source)
        self.switch = self._make_switch()
        self.world_switch = self.parts.world_switch(self)
        self.maintenance = self.parts.maintenance(self)
        if cpu_model.independent_threads:
            # Each has a timebase of its own and runs a virtual core by itself.
            cores, threads_per_core = cores * threads_per_core, 1
        self.cores = [Core(self, n, threads_per_core) for n in range(cores)]
        self.threads_per_core = threads_per_core
        self.queue: deque[VirtualCore] = deque()
        """The virtual cores that wait for a core: first who has had least of one, then who came first."""
        # A virtual host repeats itself, so its random numbers do too.
        self.random_bits: Callable[[int], int] = (
            random.Random(self.clock.origin).getrandbits if source.is_virtual else secrets.randbits
        )

    @property
    def source(self) -> TickSource:
        """The machine's monotonic clock."""
        return self.clock.source

    def core_for(self, vcore: VirtualCore) -> Core | None:
        """Return the core that `vcore` can have now: a free one, where no other virtual core is first."""
        return self.free_core() if self.queue and self.queue[0] is vcore else None

    def enqueue(self, vcore: VirtualCore, now: int) -> None:
        """Have `vcore` wait for a core from tick `now` on, before those that have had more of one.

        One that often leaves its core early, for user space, is so back on one soon; one that comes after a
        long rest is ahead of the others by two time slices, and no more.
        """
        taken = [(core, core.runs) for core in self.cores if core.runs is not None]
        others = [*self.queue, *(runs for _, runs in taken)]
        if others:
            vcore.count_as_served(min(other.served for other in others) - 2 * TIME_SLICE.value)
        ahead = sum(other.served <= vcore.served for other in self.queue)
        self.queue.insert(ahead, vcore)
        for core, runs in taken:
            if (due := now + runs.time_slice()) < core.hypervisor_decrementer.deadline:
                core.hypervisor_decrementer.write_deadline(due, now)

    def free_core(self) -> Core | None:
        """Return a core that no virtual core has."""
        for core in self.cores:
            if core.runs is None:
                return core
        return None

    def check_sync(self) -> list[str]:
        """Return what is out of step, a sentence each; nothing where the timebases are as they must be.

        P1: the low 24 bits of every core's timebase are the host clock's. P2: a core in the host has T = H,
        and one in a guest T = H plus the offset that its entry applied. A core that is known to have failed
        is none of these: it is repaired before it runs anything.
        """
        found = []
        with self.scheduler.monitor:
            for core in self.cores:
                if core.hmer:
                    continue
                adjust = core.timebase.adjust
                offset = core.applied.value if core.applied is not None else 0
                if adjust & LOW_MASK:
                    found.append(
                        f"core {core.number}: its timebase is out of phase by {adjust & LOW_MASK:#x} ticks"
                    )
                elif adjust & MASK64 != offset:
                    found.append(
                        f"core {core.number}: its timebase is the host's plus {adjust & MASK64:#x}, "
                        f"where {offset:#x} was applied"
                    )
        return found

    def _guarded(self, observer: Observer) -> Observer:
        """The observer, for as long as it works: who listens must not break what is listened to."""

        def told(event: Event) -> None:
            try:
                observer(event)
            except Exception:
                log.exception("the observer of host time is told no more")
                self.observer = None

        return told

    def _make_switch(self) -> Switch:
        engine, shifter = self.parts.engine, self.parts.shifter
        on_machine = type(self.source) is RealTime and getattr(engine, "is_native", False)
        if on_machine and shifter is shift and self.cpu_model.has_tbu40:
            # Imported here: there are compilers behind it.
            from chronovisor.hypervisor.native_switch import NativeSwitch

            return NativeSwitch()
        return Switch(self._taking_time(shifter))

    def _taking_time(self, shifter: Shifter) -> Shifter:
        """The shifter as it runs on this host: on a virtual clock each access takes an instruction's time."""

        def shifted(tb: TimebaseRegister[int], delta: int) -> Shift[int]:
            return shifter(_TakingTime(tb, self), delta)

        return shifted if self.source.is_virtual else shifter


class _TakingTime:
    """A timebase register each access to which takes the time of an instruction."""

    def __init__(self, tb: TimebaseRegister[int], host: Host) -> None:
        self._tb = tb
        self._host = host

    def read(self) -> int:
        value = self._tb.read()
        self._host.scheduler.pass_time(self._host.ticks_per_instruction)
        return value

    def write_tbu40(self, value: int, when: bool = True) -> None:
        self._tb.write_tbu40(value, when)
        self._host.scheduler.pass_time(self._host.ticks_per_instruction)
