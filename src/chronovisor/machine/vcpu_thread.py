"""One thread a vCPU: it waits for permission, runs the guest, and has each exit handled.

All vCPUs of a guest share one lock. It is never held while a vCPU runs, and never taken from inside the
hypervisor (where alarms are called): therefore `ask_to_stop` works without it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from chronovisor.kvm.exits import Exit, HcallExit, Interrupted
from chronovisor.kvm.interface import Vcpu
from chronovisor.machine.tracing import GuestTrace, VcpuTrace

_LOCK_WITHIN: Final = 0.0005
"""Seconds within which a thread that computes gives the interpreter's lock to a vCPU's thread, which let it
go for the guest. The interpreter's own 0.005 s would be most of an exit's time while regions are put in, say.
"""

VcpuTask = Callable[[Vcpu], None]
"""Something done to a vCPU while it is outside the guest."""


class VcpuThread:
    """A vCPU, its thread, and whether the guest has it stopped. Changed under its group's lock alone."""

    def __init__(self, vcpu: Vcpu, stopped: bool) -> None:
        self.vcpu = vcpu
        self.stopped = stopped
        """As RTAS counts it: it was not started, or it stopped itself."""
        self.stopping = False
        """It asked to stop and has not yet left the guest."""
        self.joined = False
        """It made H_JOIN, and waits for H_PROD."""
        self.held = False
        """A debugger keeps it from running while others run."""
        self.trace: VcpuTrace | None = None
        self.active = False
        """Its thread is at the guest: inside `run()` or handling an exit."""
        self.tasks: list[VcpuTask] = []
        self.thread: threading.Thread | None = None
        self.exits: Counter[int | str] = Counter()
        """How often it left the guest for user space, by the hypercall's number or another exit's name."""

    @property
    def ready(self) -> bool:
        """Whether it runs if the guest does."""
        return not (self.stopped or self.joined or self.held)


class VcpuThreads:
    """The vCPUs of one guest, which run and stop together.

    `handle` is called with each exit but `Interrupted`, on the vCPU's thread, outside the lock; `failed` with
    the exception of a thread that broke, which is an internal error. `kick_all` kicks every vCPU.
    """

    def __init__(
        self,
        vcpus: Sequence[Vcpu],
        is_virtual: bool,
        handle: Callable[[VcpuThread, Exit], None],
        failed: Callable[[VcpuThread, Exception], None],
        kick_all: Callable[[], None],
    ) -> None:
        self.all = [VcpuThread(vcpu, stopped=number > 0) for number, vcpu in enumerate(vcpus)]
        self.changed = threading.Condition()
        self._trace: GuestTrace | None = None
        self._is_virtual = is_virtual
        self._handle = handle
        self._failed = failed
        self._kick_all = kick_all
        self.permitted = False
        self._at_rest: Callable[[], None] | None = None
        self._closing = False

    def resume(self) -> None:
        """Let the guest go on from where it stopped; nothing if it may run already."""
        with self.changed:
            if self.permitted:
                return
            self.changed.wait_for(self._idle)
            if self._closing:
                return
            self._start_threads()
            for thread in self.all:
                if thread.ready:
                    self._set_off(thread)
            self.permitted = True
            self._tell_permitted()
            self.changed.notify_all()

    def ask_to_stop(self) -> None:
        """Have every vCPU leave the guest soon. From any thread, even an alarm's; `wait_until_idle` says
        when.
        """
        self.permitted = False
        self._tell_permitted()
        self._kick_all()

    def wait_until_idle(self) -> None:
        """Wait until no vCPU is at the guest."""
        with self.changed:
            self.changed.wait_for(self._idle)

    def trace(self, trace: GuestTrace | None) -> None:
        """Tell `trace` what happens from now on. No vCPU may be at the guest."""
        self._trace = trace
        for thread in self.all:
            thread.trace = None if trace is None else trace.vcpu(thread.vcpu.id)
            thread.vcpu.trace(thread.trace)
        self._tell_permitted()

    def _tell_permitted(self) -> None:
        if self._trace is not None:
            self._trace.may_run(self.permitted)

    def start(self, target: VcpuThread, prepare: VcpuTask) -> bool:
        """Start a stopped vCPU after `prepare` set its registers; False if it is not stopped."""
        with self.changed:
            if not target.stopped:
                return False
            prepare(target.vcpu)
            target.stopped = False
            if self.permitted and target.ready:
                self._set_off(target)
            self.changed.notify_all()
            return True

    def join(self, caller: VcpuThread) -> bool:
        """Have the calling vCPU wait for `prod`; False if all others wait already or are stopped."""
        with self.changed:
            if all(t.stopped or t.joined for t in self.all if t is not caller):
                return False
            caller.joined = True
        return True

    def prod(self, target: VcpuThread) -> bool:
        """Let a vCPU go on that waits in `join`; False if it does not."""
        with self.changed:
            if not target.joined:
                return False
            target.joined = False
            if self.permitted and target.ready and not target.active:
                self._set_off(target)
            self.changed.notify_all()
            return True

    def begin_anew(self, prepare: Callable[[], None]) -> None:
        """Have every vCPU leave the guest, call `prepare` when all are out, and let the first one go on.

        From any thread. A guest that is asked to stop meanwhile is prepared first. `prepare` is called on a
        vCPU's thread, or here if all are out already: a paused guest begins when it is resumed.
        """

        def begin() -> None:
            for number, thread in enumerate(self.all):
                thread.stopped, thread.stopping, thread.joined = number > 0, False, False
            prepare()

        with self.changed:
            self._at_rest = begin
            if self._all_out():
                self._rest(begin)
                return
        self._kick_all()

    def rest(self, task: Callable[[], None]) -> None:
        """Have every vCPU leave the guest, `task` done when all are out, and those go on that ran.

        From any thread, even an alarm's, while the guest runs. `task` is called on a vCPU's thread, under the
        lock. Nothing is done if the guest begins anew at this moment.
        """
        if self._at_rest is None:
            self._at_rest = task
            self._kick_all()

    def on_each(self, caller: VcpuThread, task: VcpuTask) -> None:
        """Have `task` done to every vCPU; call it from the thread of `caller`, which handles an exit.

        A vCPU that is at the guest does it itself, at its next exit, and is kicked for that. In real time
        this waits for it. In virtual time no other vCPU executes an instruction before it takes its kick, so
        there is nothing to wait for, and waiting would keep the other vCPU from its turn.
        """
        with self.changed:
            asked = [t for t in self.all if t.active and t is not caller]
            for thread in self.all:
                if thread in asked:
                    thread.tasks.append(task)
                else:
                    task(thread.vcpu)
        for thread in asked:
            thread.vcpu.kick()
        if self._is_virtual:
            return
        with self.changed:
            while any(task in thread.tasks for thread in asked):
                # Its own tasks first: otherwise two vCPUs could wait for each other for ever.
                self._do_tasks(caller)
                self.changed.wait(0.1)

    def close(self, timeout: float = 5.0) -> None:
        """Stop and end all threads."""
        with self.changed:
            self._closing = True
        self.ask_to_stop()
        with self.changed:
            self.changed.notify_all()
        for thread in self.all:
            if thread.thread is not None and thread.thread is not threading.current_thread():
                thread.thread.join(timeout)

    def _idle(self) -> bool:
        return self._at_rest is None and self._all_out()

    def _all_out(self) -> bool:
        return not any(thread.active for thread in self.all)

    def _set_off(self, thread: VcpuThread) -> None:
        # Bound before any thread goes on: in virtual time the order of turns must not depend on which thread
        # wakes first.
        thread.active = True
        thread.vcpu.bind()

    def _start_threads(self) -> None:
        sys.setswitchinterval(min(sys.getswitchinterval(), _LOCK_WITHIN))
        for thread in self.all:
            if thread.thread is None:
                thread.thread = threading.Thread(
                    target=self._serve, args=(thread,), name=f"vCPU {thread.vcpu.id}", daemon=True
                )
                thread.thread.start()

    def _serve(self, thread: VcpuThread) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._closing or thread.active)
                if not thread.active:
                    return
            try:
                self._run_guest(thread)
            except Exception as error:
                self._failed(thread, error)
            with self.changed:
                self._do_tasks(thread)
                if thread.stopping:
                    thread.stopping, thread.stopped = False, True
                thread.active = False
                if self._at_rest is not None:
                    if self._all_out():
                        # In virtual time the turns then begin as they do after a pause.
                        thread.vcpu.unbind()
                        self._rest(self._at_rest)
                elif self.permitted and thread.ready:
                    # It was prodded while it left for H_JOIN.
                    self._set_off(thread)
                if not thread.active:
                    # Last: after this another vCPU may have its turn, and it sees this one's state.
                    thread.vcpu.unbind()
                self.changed.notify_all()

    def _rest(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:
            self._failed(self.all[0], error)
        self._at_rest = None
        if self.permitted:
            for thread in self.all:
                if thread.ready:
                    self._set_off(thread)

    def _run_guest(self, thread: VcpuThread) -> None:
        # It changes only while no vCPU is at the guest.
        trace = thread.trace
        while True:
            exit_ = thread.vcpu.run() if trace is None else run_told(thread.vcpu, trace)
            if isinstance(exit_, Interrupted):
                with self.changed:
                    self._do_tasks(thread)
                # Only here: the answer to the last exit is in the registers now.
                if not self.permitted or thread.stopping or thread.joined or self._at_rest is not None:
                    return
            else:
                self._handle(thread, exit_)
                if trace is not None:
                    trace.handled()
                if thread.stopping or thread.joined:
                    thread.vcpu.kick()

    def _do_tasks(self, thread: VcpuThread) -> None:
        tasks, thread.tasks = thread.tasks, []
        for task in tasks:
            task(thread.vcpu)
        if tasks:
            self.changed.notify_all()


def run_told(vcpu: Vcpu, trace: VcpuTrace) -> Exit:
    """Run a vCPU, and tell of the run."""
    trace.run_begins()
    exit_ = vcpu.run()
    # Not by name: an enum's names take long to read, and most runs may only be counted.
    trace.run_ends(exit_.reason, exit_.nr if isinstance(exit_, HcallExit) else None)
    return exit_
