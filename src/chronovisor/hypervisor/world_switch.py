"""Entry and exit: how the threads of a virtual core go into the guest together and come out together.

The first thread to come is the core's primary. It alone changes the core's timebase, before any other thread
may run the guest. When one thread leaves, all do. When all are out, the primary takes away the offset that it
added; only behind that barrier is each thread's decrementer kept, as the host time at which it expires.
"""

from __future__ import annotations

from typing import Protocol

from chronovisor.hypervisor.dispatch import Dispatch
from chronovisor.hypervisor.maintenance import Maintenance
from chronovisor.hypervisor.run_queue import RunQueue
from chronovisor.hypervisor.scheduler import Scheduler
from chronovisor.hypervisor.stay import Occupant, Stay
from chronovisor.hypervisor.timer import Timer
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.processor.core import HardwareThread
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.offset import Switch, SwitchBreachError
from chronovisor.timebase.tbu40 import HostTimebase, NoTbu40Error
from chronovisor.timebase.trace import DecrementerKept, Observer, SecondaryLetIn, ThreadOut
from chronovisor.timebase.types import SourceTime


class Switching(Protocol):
    """The host whose threads enter guests and leave them."""

    scheduler: Scheduler
    switch: Switch
    observer: Observer | None
    maintenance: Maintenance

    @property
    def source(self) -> TickSource:
        """The machine's monotonic clock."""

    @property
    def run_queue(self) -> RunQueue:
        """Who has which core, and who waits for one."""


class Traveller(Occupant, Protocol):
    """A vCPU that goes into its guest and comes out, on the thread that runs it."""

    next_dispatch: Dispatch

    @property
    def number(self) -> int:
        """Its number in its machine."""

    @property
    def thread_number(self) -> int:
        """The number of the hardware thread that it runs on, within its core."""

    @property
    def vcore(self) -> VirtualCore:
        """Its virtual core."""

    @property
    def timer(self) -> Timer:
        """Its decrementer."""

    @property
    def kicked(self) -> bool:
        """Whether its run is to end."""

    def begin(self, stay: Stay, thread: HardwareThread, now: SourceTime) -> None:
        """Load what the guest needs on `thread` at tick `now`: the core's timebase is the guest's."""

    def end(self, stay: Stay, now: SourceTime) -> None:
        """Stop at tick `now` what runs only in the guest; the timebase may still be the guest's."""


class WorldSwitch:
    """The entries and exits of one host. `enter` and `leave` are called by the thread that they move."""

    def __init__(self, host: Switching) -> None:
        self._host = host
        self._scheduler = host.scheduler
        self._source = host.source
        self._queue = host.run_queue
        self.gives_way = host.source.is_virtual
        """Whether threads that are ready come along with the primary: they wait behind its switch, and not
        for the next entry.
        """

    def enter(self, vcpu: Traveller) -> Stay | None:
        """Bring the calling thread's vCPU into the guest, and return the stay that it takes part in; None if
        it was kicked before it had a core.

        It joins its virtual core's stay, unless there is none or it is about to end; then it waits for a core
        as the primary. `leave` must follow. If the timebase could not be switched, `Stay.failure` says why,
        and the vCPU must not run the guest.
        """
        vcore = vcpu.vcore
        # By name, here and below: a `with` takes longer than the lock itself.
        monitor = self._scheduler.monitor
        monitor.acquire()
        try:
            stay, queue = vcore.stay, self._queue
            if stay is None and not queue.waiting:
                stay = vcore.stay = queue.begin_stay(vcore, vcpu)
            if stay is None or stay.leaving:
                stay = self._wait_for_core(vcpu)
                if stay is None:
                    return None
            core = stay.core
            thread = core.threads[vcpu.thread_number]
            is_primary = stay.primary is vcpu
            if not is_primary:
                stay.inside.append(vcpu)
            try:
                if is_primary:
                    self._enter_as_primary(stay, vcore)
                else:
                    self._enter_as_secondary(stay, thread, vcpu.number)
                # If the stay already ends, the vCPU does not begin.
                if not stay.leaving:
                    now = self._source.ticks()
                    if is_primary:
                        vcore.run_time.start(now)
                        core.hypervisor_decrementer.deadline = queue.time_slice_end(vcore, now)
                    vcpu.begin(stay, thread, now)
            except BaseException as error:
                # A mistake of ours: the vCPU leaves again, and the core is not lost.
                stay.failure = f"the entry failed: {error}"
                self.leave(vcpu, stay)
                raise
            return stay
        finally:
            monitor.release()

    def leave(self, vcpu: Traveller, stay: Stay) -> None:
        """Take the calling thread's vCPU out of the guest, and with it all of its virtual core."""
        vcore, timer, observer = vcpu.vcore, vcpu.timer, self._host.observer
        monitor = self._scheduler.monitor
        monitor.acquire()
        try:
            # Nobody joins a stay that ends. If nobody else is in it, there is nobody to tell.
            count = len(stay.inside)
            if count > 1:
                stay.leave_soon()
            stay.leaving = True
            ended = self._source.ticks()
            vcpu.end(stay, ended)
            stay.out += 1
            if observer is not None:
                observer(ThreadOut(stay.core.number, vcpu.thread_number, vcpu.number))
            try:
                if stay.primary is vcpu:
                    if stay.out < count:
                        ended = self._await_secondaries(stay)
                    vcore.run_time.stop(ended)
                    self._restore_host_time(stay, vcore)
                else:
                    self._await_host_time(stay)
            finally:
                # Behind the barrier: T is the host's again, so DEC + T is an expiry in host time.
                if stay.host_timebase is not None and timer.thread is not None:
                    expiry = timer.keep(stay.host_timebase, vcore.offset, stay.entered_with, ended)
                    if observer is not None:
                        observer(DecrementerKept(vcpu.number, expiry))
                stay.kept += 1
                if stay.kept == count:
                    self._release(stay, vcore)
                self._scheduler.changed()
        finally:
            monitor.release()

    # The steps

    def _wait_for_core(self, vcpu: Traveller) -> Stay | None:
        """Wait until the vCPU's virtual core has a core to run on; None if the vCPU was kicked first."""
        vcore, queue = vcpu.vcore, self._queue
        since = self._source.ticks()
        if vcore.stay is None and vcore not in queue.waiting:
            queue.enqueue(vcore, since)
        vcore.wanting += 1
        self._scheduler.wait(lambda: vcpu.kicked or vcore.can_be_joined or queue.has_core_for(vcore))
        vcore.wanting -= 1
        # While its own virtual core was leaving, no other virtual core kept it from running.
        vcpu.next_dispatch.waited_for_core(max(0, self._source.ticks() - max(since, vcore.queued_at)))
        if vcpu.kicked:
            if not vcore.wanting and vcore in queue.waiting:
                queue.waiting.remove(vcore)
            self._scheduler.changed()
            return None
        if vcore.can_be_joined:
            return vcore.stay
        stay = vcore.stay = queue.begin_stay(vcore, vcpu)
        assert stay is not None
        return stay

    def _enter_as_primary(self, stay: Stay, vcore: VirtualCore) -> None:
        if self.gives_way:
            self._scheduler.give_way()
        # Noted before the switch: an offset that is set during the switch is not the one that is added.
        offset = stay.entered_with = vcore.offset
        host = self._host
        try:
            stay.applied = host.switch.enter(stay.core.timebase, offset, host.observer)
        except (SwitchBreachError, NoTbu40Error) as error:
            stay.failure = str(error)
            stay.leave_soon()
        if len(stay.inside) > 1:
            self._scheduler.changed()

    def _enter_as_secondary(self, stay: Stay, thread: HardwareThread, vcpu: int) -> None:
        """Wait until the core's timebase is the guest's."""
        self._scheduler.wait(lambda: stay.failure is not None or stay.applied is not None)
        self._let_in(stay, thread, vcpu)

    def _let_in(self, stay: Stay, thread: HardwareThread, vcpu: int) -> None:
        if not stay.leaving and self._host.observer is not None:
            self._host.observer(SecondaryLetIn(stay.core.number, thread.number, vcpu))

    def _await_secondaries(self, stay: Stay) -> SourceTime:
        """Wait until all threads have left the guest; return the tick at which they had."""
        self._scheduler.changed()
        self._scheduler.wait(lambda: stay.all_out)
        return self._source.ticks()

    def _await_host_time(self, stay: Stay) -> None:
        self._scheduler.changed()
        self._scheduler.wait(lambda: stay.host_timebase is not None)

    def _restore_host_time(self, stay: Stay, vcore: VirtualCore) -> None:
        """Take away what the entry added, whatever was set since; then repair what failed meanwhile."""
        core, host, applied = stay.core, self._host, stay.applied
        timebase: HostTimebase | None = None
        try:
            if applied is not None:
                timebase = host.switch.leave(core.timebase, applied, host.observer)
        finally:
            # A mistake of ours ends this vCPU's run, and must cost neither the core nor the other threads.
            stay.host_timebase = core.timebase.load_from_tod() if timebase is None else timebase
            stay.applied = None
            if core.hmer:
                host.maintenance.handle(core)

    def _release(self, stay: Stay, vcore: VirtualCore) -> None:
        """End the stay: the core is free, and the virtual core may enter again."""
        self._queue.stays[stay.core.number] = vcore.stay = None
        if vcore.wanting:
            self._queue.enqueue(vcore, self._source.ticks())
