"""A guest as its owner sees it: run it, stop it, look at it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from chronovisor.kvm.exits import DebugExit, Exit
from chronovisor.kvm.ids import MemoryFlag
from chronovisor.kvm.interface import Device, System, Vcpu, Vm
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.kvm.statistics import Statistics
from chronovisor.machine.console import Console
from chronovisor.machine.dispatch_log_reader import read_dispatch_log
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.errors import MachineError
from chronovisor.machine.machine_state import MachineState, put_state, take_state
from chronovisor.machine.platform import Platform
from chronovisor.machine.run_until import run_until, wait_and_pause
from chronovisor.machine.sizes import Topology
from chronovisor.machine.tracing import GuestTrace
from chronovisor.machine.vcpu_exits import end_by_error, handle_exit
from chronovisor.machine.vcpu_thread import VcpuThread, VcpuThreads
from chronovisor.machine.vio.attachments import NOTHING, Attachments
from chronovisor.machine.wall_clock import TimeOfDay, WallClock
from chronovisor.memory import GuestMemory
from chronovisor.papr.dispatch_log import DispatchLog
from chronovisor.papr.hcalls import name_of
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.history import History, Hop
from chronovisor.timebase.types import GuestTime, Offset, Ticks

MEMORY_SLOT: Final = 0
"""The slot of KVM's that holds the guest's memory."""
_LPCR_LD: Final = 1 << 17
"""LPCR[LD]: the guest's decrementer has the processor's full width (Power ISA 3.0B, Book III, 2.2)."""


class Recorder(Protocol):
    """Told whenever a guest stops and goes on, and so can have it do again what it did between."""

    def goes_on(self) -> None:
        """The guest is about to go on; no vCPU runs."""

    def has_stopped(self) -> None:
        """The guest has stopped; it may have stopped before."""


class Guest:
    """A virtual machine with its console. Made by `Host.boot`, or `Host.prepare` for one that arrives by a
    move.

    It starts paused; `run`, `run_for`, `run_until` and `resume` let it go.
    """

    def __init__(
        self,
        system: System,
        vm: Vm,
        vcpus: Sequence[Vcpu],
        memory: GuestMemory,
        topology: Topology,
        console: Console,
        name: str,
        controller: Device | None = None,
        attachments: Attachments = NOTHING,
    ) -> None:
        self.system = system
        self.vm = vm
        self.memory = memory
        self.topology = topology
        self.console = console
        self.name = name
        self.wall_clock = WallClock(system.clock.source)
        # In virtual time a run has to repeat itself.
        self.random = random.Random(0) if system.clock.source.is_virtual else random.SystemRandom()
        self.holding = threading.RLock()
        """Locked while the guest is held: meanwhile no other thread can resume it."""
        self.end: GuestEnd | None = None
        """How the guest ended; None while it can still run."""
        self.closed = False
        self.history = History(0)
        """What happened to its time; moves and snapshots carry it along."""
        self.little_endian: bool | None = None
        """The byte order of the image that it began with; None if it began elsewhere."""
        self.on_debug_exit: Callable[[int, DebugExit], None] = lambda vcpu, exit_: None
        """Told, on a vCPU's thread, of a single step that is done or a breakpoint: the guest stops."""
        self.on_end: Callable[[], None] = lambda: None
        """Told, on any thread, when it has ended."""
        self.recorder: Recorder | None = None
        self._carried_time_of_day: TimeOfDay | None = None
        self._threads = VcpuThreads(vcpus, system.clock.source.is_virtual, self._handle, self._broke, vm.kick)
        self.platform = Platform(
            vm,
            memory,
            console,
            self.wall_clock,
            self.random,
            self._threads,
            self._finish,
            controller,
            attachments,
            system.clock.source.is_virtual,
        )
        """What its own calls reach."""

    # Running

    def run(
        self,
        timeout: float | None = None,
        begun: Callable[[], None] = lambda: None,
        paused: bool = False,
    ) -> GuestEnd:
        """Let the guest run until it ends; after `timeout` seconds of real time it is paused, and the answer
        is a TIMED_OUT that leaves it able to go on. `begun` is called once it was let go. A guest that is
        `paused` waits for someone else to resume it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not paused:
            self.resume()
        begun()
        wait_and_pause(self, self._threads, lambda: self.end is not None, deadline)
        return self.end or GuestEnd(EndReason.TIMED_OUT, f"the guest still ran after {timeout} s")

    def run_for(self, ticks: Ticks) -> GuestEnd | None:
        """Let the guest run for `ticks` of its host's clock, then pause it; None if it can go on."""
        run_until(self, self._threads, lambda: False, ticks)
        return self.end

    def run_until(self, predicate: Callable[[str], bool] | str, within: Ticks | None = None) -> bool:
        """Let the guest run until `predicate` holds for all of the console's text, checked after each output,
        (or the text contains the given one), then pause it.

        False if that did not happen before the guest's end, or `within` so many ticks of its host's clock.
        """
        text = predicate
        holds = (lambda printed: text in printed) if isinstance(text, str) else text
        return run_until(self, self._threads, lambda: holds(self.console.text), within)

    def run_while(self, holds: Callable[[], bool]) -> None:
        """Let the guest run until it ends or `holds` is no longer so, and then pause it.

        `holds` is looked at when a vCPU leaves the guest, and twice a second.
        """
        self.resume()
        wait_and_pause(self, self._threads, lambda: self.end is not None or not holds())

    def resume(self) -> None:
        """Let the guest go on, and return at once. If another thread holds it, wait for that thread first.

        MachineError if it has ended, or if another process has its disk.
        """
        with self.holding:
            if self.end is not None:
                raise MachineError(f"{self.name}: the guest has ended ({self.end.message}); boot it again")
            if self.recorder is not None and not self._threads.permitted:
                # A vCPU that has stopped the guest itself may still be on its way out.
                self._threads.wait_until_idle()
                self.recorder.goes_on()
            self.platform.vio.resume()
            if self.console.typed:
                # It may have come after the state was saved that this guest was made of.
                self.platform.tell_of_input()
            self._threads.resume()

    def pause(self) -> None:
        """Stop all vCPUs between two instructions, and come back when they are out of the guest.

        Its devices have finished by then what they had begun.
        """
        self._threads.ask_to_stop()
        self._threads.wait_until_idle()
        self.platform.vio.pause()
        if self.recorder is not None:
            self.recorder.has_stopped()

    def rest(self, task: Callable[[], None]) -> None:
        """Have every vCPU of a running guest leave it, `task` done when all are out, and all go on.

        From any thread, even an alarm's. `task` is called on a vCPU's thread and must not stop the guest.
        """
        self._threads.rest(task)

    @property
    def held_back(self) -> frozenset[int]:
        """The vCPUs that `hold_back` was given."""
        return frozenset(thread.vcpu.id for thread in self._threads.all if thread.held)

    def hold_back(self, vcpus: Collection[int]) -> None:
        """Have these vCPUs, and no others, wait while the guest runs from now on. The guest is paused."""
        for thread in self._threads.all:
            thread.held = thread.vcpu.id in vcpus

    def trace(self, trace: GuestTrace | None) -> None:
        """Tell `trace` what the guest does from now on; None: nobody.

        A running guest is paused for a moment.
        """
        with self.held():
            self._threads.trace(trace)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which the guest is paused; it goes on afterwards if it ran before."""
        with self.holding:
            ran = self.running
            self.pause()
            try:
                yield
            finally:
                if ran and self.end is None:
                    self.resume()

    def leave(self, where: str) -> None:
        """End the guest here because it goes on elsewhere: `where`, for people."""
        self._finish(GuestEnd(EndReason.MOVED, f"the guest went to {where}"))

    def stop(self, reason: EndReason = EndReason.STOPPED) -> None:
        """End the guest because its owner wishes so. From any thread."""
        self._finish(GuestEnd(reason, "the guest was stopped"))

    def close(self) -> None:
        """End the guest's threads and give its memory back."""
        self.closed = True
        self.platform.ignore_console()
        self._threads.close()
        self.platform.vio.close()
        self.vm.close()
        self.memory.release()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Looking

    @property
    def running(self) -> bool:
        """Whether it may run now."""
        return self._threads.permitted and self.end is None

    def thread_id(self, vcpu: int = 0) -> int:
        """Return the host's id of the thread that runs a vCPU; 0 before the guest first ran."""
        thread = next(thread.thread for thread in self._threads.all if thread.vcpu.id == vcpu)
        return (thread.native_id or 0) if thread is not None else 0

    @property
    def console_text(self) -> str:
        """What the guest has printed so far."""
        return self.console.text

    @property
    def vcpus(self) -> list[Vcpu]:
        """The vCPUs of KVM's interface, in the order of their ids.

        A vCPU's methods wait until it has left the guest, which a guest that makes no call to user space
        never does by itself. So call them only inside `held`, or while the guest is paused.
        """
        return [thread.vcpu for thread in self._threads.all]

    def get(self, register: str, vcpu: int = 0) -> int:
        """A register by name (R3, PC, MSR, TB_OFFSET, DEC_EXPIRY, …), unsigned. A running guest is paused for
        it.
        """
        with self.held():
            return read_register(self._vcpu(vcpu), register)

    def set(self, register: str, value: int, vcpu: int = 0) -> None:
        """Set a register by name. A running guest is paused for it."""
        with self.held():
            of = self._vcpu(vcpu)
            if register.upper() != "TB_OFFSET":
                write_register(of, register, value)
                return
            # Its owner gives it another time: that is its ideal from now on.
            before, clock = Offset(read_register(of, register)), self.system.clock
            write_register(of, register, value)
            after = Offset(read_register(of, register))
            self.history = self.history.then(Hop.set_by_owner(clock.now(), before, after, clock.origin))

    def timebase(self, vcpu: int = 0) -> GuestTime:
        """What the guest's `mftb` would read now: its host's timebase plus its offset."""
        return self.system.clock.now() + Offset(self.get("TB_OFFSET", vcpu))

    def dispatch_log(self, vcpu: int = 0, start: int = 0, count: int | None = None) -> DispatchLog:
        """Return what a vCPU's dispatch trace log holds now: `count` entries at most from number `start` on.

        A running guest is paused for a moment. MachineError if the guest has registered no log.
        """
        return read_dispatch_log(self, self._vcpu(vcpu), start, count)

    def statistics(self) -> Statistics | None:
        """What executed the guest's instructions here: see `chronovisor.kvm.statistics`.

        A running guest is paused for a moment. None if the processor itself executes them.
        """
        with self.held():
            return self.vm.statistics()

    @property
    def exits(self) -> dict[str, int]:
        """How often its vCPUs have left it for user space here, by reason. The guest may run meanwhile."""
        counted: dict[str, int] = {}
        for thread in self._threads.all:
            for reason, count in thread.exits.copy().items():
                name = reason if isinstance(reason, str) else name_of(reason)
                counted[name] = counted.get(name, 0) + count
        return counted

    @property
    def offset(self) -> Offset:
        """The timebase offset of all its virtual cores; MachineError if they have different ones.

        A running guest is paused for a moment.
        """
        with self.held():
            offsets = {read_register(vcpu, "TB_OFFSET") for vcpu in self.vcpus}
        if len(offsets) > 1:
            raise MachineError(
                f"{self.name}: its virtual cores have different timebase offsets "
                f"({', '.join(f'{o:#x}' for o in sorted(offsets))}): give them one first"
            )
        return Offset(offsets.pop())

    @property
    def decrementer_bits(self) -> int:
        """How many bits the guest's decrementer has: 32 unless LPCR[LD] is set.

        A running guest is paused for a moment.
        """
        large = self.get("LPCR_64") & _LPCR_LD
        return self.system.host.dec_bits if large else 32

    @property
    def machine_state(self) -> MachineState:
        """What else a move has to carry; take it while the guest is paused."""
        now = self.system.clock.now() + Offset(read_register(self.vcpus[0], "TB_OFFSET"))
        return take_state(self.platform, self._threads.all, self.history, now)

    @machine_state.setter
    def machine_state(self, state: MachineState) -> None:
        self._carried_time_of_day = state.time_of_day
        self.history = state.history
        put_state(state, self.platform, self._threads.all)

    @property
    def ideal(self) -> IdealInterval:
        """How far its time is ahead of what it would be had none ever rounded it."""
        return self.history.ideal

    def continue_time_of_day(self) -> None:
        """Continue the time of day that came with the machine's state by the guest's own time, once its
        timebase is set; nothing if no time of day came.
        """
        carried, self._carried_time_of_day = self._carried_time_of_day, None
        if carried is not None:
            self.wall_clock.set_since_epoch(carried.at(self.timebase()))

    # Which memory it writes

    def log_dirty_pages(self, on: bool) -> None:
        """Log the pages that are written from now on, or stop logging. The guest may run."""
        flags = MemoryFlag.LOG_DIRTY_PAGES if on else 0
        self.vm.set_user_memory_region(MEMORY_SLOT, flags, 0, self.memory)

    def dirty_pages(self) -> Sequence[int]:
        """The pages written since the last call, or since they are logged: rising numbers, in units of the
        host's page size. The guest may run.
        """
        return self.vm.get_dirty_log(MEMORY_SLOT)

    # Inside

    def _vcpu(self, number: int) -> Vcpu:
        thread = self.platform.processor(number)
        if thread is None:
            raise MachineError(
                f"{self.name}: there is no vCPU {number}; it has 0 to {self.topology.vcpus - 1}"
            )
        return thread.vcpu

    def is_stopped(self, vcpu: int) -> bool:
        """Whether a vCPU is stopped as RTAS counts it: it was not started, or it stopped itself."""
        return next(thread.stopped for thread in self._threads.all if thread.vcpu.id == vcpu)

    def _finish(self, end: GuestEnd) -> None:
        with self._threads.changed:
            if self.end is None:
                self.end = end
            self._threads.changed.notify_all()
        self._threads.ask_to_stop()
        self.on_end()

    def _handle(self, thread: VcpuThread, exit_: Exit) -> None:
        def debugged(stop: DebugExit) -> None:
            self._threads.ask_to_stop()
            self.on_debug_exit(thread.vcpu.id, stop)

        handle_exit(self.platform, thread, exit_, debugged, self._finish)

    def _broke(self, thread: VcpuThread, error: Exception) -> None:
        self._finish(end_by_error(thread, error))
