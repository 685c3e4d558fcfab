"""The hypervisor of one host: the host's processor, and what it takes to share it among guests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.interface import Engine
from chronovisor.hypervisor.guest_model import GUEST_MODELS, GuestModel
from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.run_queue import RunQueue
from chronovisor.hypervisor.scheduler import Scheduler, scheduler_for
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.processor.core import Core
from chronovisor.processor.cpu_model import POWER9, CpuModel
from chronovisor.processor.processor import Processor
from chronovisor.timebase.clock import HostClock, RealTime, TickSource
from chronovisor.timebase.offset import Shift, Shifter, Switch, shift
from chronovisor.timebase.tbu40 import TimebaseRegister
from chronovisor.timebase.trace import Event, Observer
from chronovisor.timebase.types import LOW_MASK, MASK64

EngineMaker: TypeAlias = Callable[[GuestMemory], Engine]
"""Makes what runs the instructions of a virtual machine with this memory."""

log = logging.getLogger(__name__)


class Hypervisor:
    """The hypervisor of one host.

    `origin`, `cores`, `threads_per_core`, `cpu_model` and `ticks_per_instruction` are those of its
    `Processor`. `engine` makes what runs the instructions of each virtual machine. The `observer` is told
    what entries and exits do to time, under the host's monitor: it must not wait. Raises ValueError for
    counts of cores or threads that the model cannot have.
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
        engine: EngineMaker = ConcreteEngine,
        guest_model: GuestModel | None = None,
    ) -> None:
        self.engine: EngineMaker = engine
        self.guest_model = GUEST_MODELS[cpu_model.name] if guest_model is None else guest_model
        self.observer: Observer | None = None if observer is None else self._guarded(observer)
        self.scheduler: Scheduler = scheduler_for(source)
        self.switch: Switch = self._make_switch(source, cpu_model, ticks_per_instruction)
        self.processor = Processor(
            source,
            origin,
            cores,
            threads_per_core,
            cpu_model,
            ticks_per_instruction,
            self.switch.timebase,
        )
        self.run_queue = RunQueue(self.cores)
        self.maintenance: Maintenance = Maintenance(self)
        self.world_switch: WorldSwitch = WorldSwitch(self)

    @property
    def cpu_model(self) -> CpuModel:
        """The kind of its processor."""
        return self.processor.cpu_model

    @property
    def cores(self) -> Sequence[Core]:
        """Its cores, by number."""
        return self.processor.cores

    @property
    def threads_per_core(self) -> int:
        """Threads of each core; 1 if the processor's threads are independent."""
        return self.processor.threads_per_core

    @property
    def ticks_per_instruction(self) -> int:
        """How far a virtual clock goes with each instruction."""
        return self.processor.ticks_per_instruction

    @property
    def random_bits(self) -> Callable[[int], int]:
        """Returns so many random bits."""
        return self.processor.random_bits

    @property
    def clock(self) -> HostClock:
        """The host's clock."""
        return self.processor.clock

    @property
    def source(self) -> TickSource:
        """The machine's monotonic clock."""
        return self.processor.clock.source

    def check_sync(self) -> list[str]:
        """Return what is out of step, a sentence each; nothing if the timebases are as they must be.

        P1: the low 24 bits of every core's timebase are the host clock's. P2: a core in the host has T = H,
        and one in a guest T = H plus the offset that its entry applied. A core that is known to have failed
        is left out: it is repaired before it runs anything.
        """
        found = []
        with self.scheduler.monitor:
            for core, stay in zip(self.cores, self.run_queue.stays, strict=True):
                if core.hmer:
                    continue
                adjust = core.timebase.adjust
                offset = stay.applied.value if stay is not None and stay.applied is not None else 0
                if adjust & LOW_MASK:
                    found.append(
                        f"core {core.number}: its timebase is out of phase by {adjust & LOW_MASK:#x} ticks"
                    )
                elif adjust & MASK64 != offset:
                    found.append(
                        f"core {core.number}: its timebase is the host's plus {adjust & MASK64:#x}, "
                        f"but {offset:#x} was applied"
                    )
        return found

    def _guarded(self, observer: Observer) -> Observer:
        """Return the observer, to be told for as long as it works: its failure must not break the host."""

        def told(event: Event) -> None:
            try:
                observer(event)
            except Exception:
                log.exception("the observer of host time is told no more")
                self.observer = None

        return told

    def _make_switch(self, source: TickSource, cpu_model: CpuModel, ticks_per_instruction: int) -> Switch:
        if source.is_virtual:
            return Switch(taking_time(shift, self.scheduler, ticks_per_instruction))
        if type(source) is RealTime and getattr(self.engine, "is_native", False) and cpu_model.has_tbu40:
            # Imported here, because it loads compilers.
            from chronovisor.hypervisor.native_switch import NativeSwitch

            return NativeSwitch()
        return Switch()


class Clockwork(Protocol):
    """What moves a virtual clock."""

    def pass_time(self, ticks: int) -> None:
        """Move the clock by so many ticks."""


def taking_time(shifter: Shifter, clockwork: Clockwork, ticks: int) -> Shifter:
    """Return `shifter` as it runs in virtual time: each access to the timebase takes so many `ticks`."""

    def shifted(tb: TimebaseRegister[int], delta: int) -> Shift[int]:
        return shifter(_TakingTime(tb, clockwork, ticks), delta)

    return shifted


class _TakingTime:
    """A timebase register each access to which takes time."""

    def __init__(self, tb: TimebaseRegister[int], clockwork: Clockwork, ticks: int) -> None:
        self._tb = tb
        self._clockwork = clockwork
        self._ticks = ticks

    def read(self) -> int:
        value = self._tb.read()
        self._clockwork.pass_time(self._ticks)
        return value

    def write_tbu40(self, value: int, when: bool = True) -> None:
        self._tb.write_tbu40(value, when)
        self._clockwork.pass_time(self._ticks)
