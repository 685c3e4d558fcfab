"""When a guest runs: letting it go, stopping and holding it, and how it ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, Self

from chronovisor.kvm.exits import DebugExit, Exit
from chronovisor.kvm.interface import Device, System, Vcpu, Vm
from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.errors import MachineError
from chronovisor.machine.platform import Platform
from chronovisor.machine.run_until import run_until, wait_and_pause
from chronovisor.machine.sizes import Topology
from chronovisor.machine.tracing import GuestTrace
from chronovisor.machine.vcpu_exits import end_by_error, handle_exit
from chronovisor.machine.vcpu_thread import VcpuThread, VcpuThreads
from chronovisor.machine.vio.attachments import NOTHING, Attachments
from chronovisor.machine.wall_clock import WallClock
from chronovisor.memory import GuestMemory
from chronovisor.timebase.types import Ticks


class Recorder(Protocol):
    """Told whenever a guest stops and goes on, and so can have it do again what it did between."""

    def goes_on(self) -> None:
        """The guest is about to go on; no vCPU runs."""

    def has_stopped(self) -> None:
        """The guest has stopped; it may have stopped before."""

    @property
    def in_the_past(self) -> bool:
        """Whether somebody looks at the past: meanwhile the clock shows the past's time."""


class GuestRun:
    """A virtual machine that can be let go, stopped and held. `Guest` can be looked into, too.

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
        self.little_endian: bool | None = None
        """The byte order of the image that it began with; None if it began elsewhere."""
        self.on_debug_exit: Callable[[int, DebugExit], None] = lambda vcpu, exit_: None
        """Told, on a vCPU's thread, of a single step that is done or a breakpoint: the guest stops."""
        self.on_end: Callable[[], None] = lambda: None
        """Told, on any thread, when it has ended."""
        self.recorder: Recorder | None = None
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

    def check_present(self) -> None:
        """MachineError while a debugger has set the guest's clock back, to look at its past."""
        if self.recorder is not None and self.recorder.in_the_past:
            raise MachineError(f"a debugger looks at the past of {self.name}: continue to the present there")

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it may run now."""
        return self._threads.permitted and self.end is None

    def thread_id(self, vcpu: int = 0) -> int:
        """Return the host's id of the thread that runs a vCPU; 0 before the guest first ran."""
        thread = next(thread.thread for thread in self._threads.all if thread.vcpu.id == vcpu)
        return (thread.native_id or 0) if thread is not None else 0

    # Inside

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
