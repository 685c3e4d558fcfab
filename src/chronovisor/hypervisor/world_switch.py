"""Entry and exit: how the threads of a virtual core go into the guest together and come out together.

The first thread to come is the core's primary. It alone changes the core's timebase, before any other may run
the guest. When one thread leaves, all do; when all are out, the primary takes away the offset that it added,
and only behind that barrier is each thread's decrementer kept, as the host time at which it expires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.timebase.offset import Applied, SwitchBreachError
from chronovisor.timebase.tbu40 import NoTbu40Error
from chronovisor.timebase.trace import Event, SecondaryLetIn, ThreadOut

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core, HardwareThread, Host
    from chronovisor.hypervisor.virtual_core import VirtualCore
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu


class WorldSwitch:
    """The entries and exits of one host. `enter` and `leave` are called by the thread that they move."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._scheduler = host.scheduler
        self._source = host.source

    def enter(self, vcpu: VirtualCpu) -> bool:
        """Bring the calling thread's vCPU into the guest; False where it was kicked before it had a core.

        It shares its virtual core's core, where that has one and is not about to leave it, or else waits for
        one as its primary. `leave` must follow. Where the timebase could not be switched the vCPU is brought
        no further than the door: `VirtualCore.failure` says why.
        """
        vcore = vcpu.vcore
        with self._scheduler.monitor:
            thread = self._find_thread(vcpu)
            if thread is None:
                return False
            vcpu.thread = thread
            vcore.inside.append(vcpu)
            try:
                is_primary = vcore.primary is vcpu
                if is_primary:
                    self._enter_as_primary(vcore, thread.core)
                else:
                    self._enter_as_secondary(vcpu, thread)
                # One that is to leave already does not begin.
                if not vcore.leaving:
                    now = self._source.ticks()
                    if is_primary:
                        vcore.begin(now)
                    vcpu.begin(thread, now)
            except BaseException as error:
                # A mistake of ours: what came in goes out again, and the core is not lost.
                vcore.failure = f"the entry failed: {error}"
                self.leave(vcpu)
                raise
            return True

    def leave(self, vcpu: VirtualCpu) -> None:
        """Take the calling thread's vCPU out of the guest, and with it all of its virtual core."""
        vcore, thread = vcpu.vcore, vcpu.thread
        assert thread is not None, "only who entered can leave"
        core = thread.core
        with self._scheduler.monitor:
            vcore.leave_soon()
            ended = self._source.ticks()
            vcpu.end(ended)
            vcore.out += 1
            if self._host.observer is not None:
                self._tell(ThreadOut(core.number, thread.number, vcpu.number))
            try:
                if vcore.primary is vcpu:
                    if vcore.out < len(vcore.inside):
                        ended = self._await_secondaries(vcore)
                    vcore.run_time.stop(ended)
                    self._restore_host_time(vcore, core)
                else:
                    self._await_host_time(vcore)
                # Behind the barrier: T is the host's again, so DEC + T is an expiry in host time.
                vcpu.keep_decrementer(thread, ended)
            finally:
                vcpu.thread = None
                vcore.kept += 1
                if vcore.kept == len(vcore.inside):
                    self._release(vcore, core)
                self._scheduler.changed()

    # What a sabotaged switch does otherwise

    def secondary_may_enter(self, core: Core) -> bool:
        """Whether the core's other threads may run the guest: when its timebase is the guest's."""
        return core.applied is not None

    def to_take_away(self, core: Core, vcore: VirtualCore) -> Applied:
        """Return the offset that an exit takes away: what the entry added, whatever was set since."""
        assert core.applied is not None
        return core.applied

    # The steps

    def _find_thread(self, vcpu: VirtualCpu) -> HardwareThread | None:
        """Find a hardware thread for the vCPU, on its virtual core's core; None where it was kicked first."""
        vcore, host = vcpu.vcore, self._host
        if vcore.core is None and not host.queue and (core := host.free_core()) is not None:
            vcore.take(core, vcpu)
        elif not vcore.can_be_joined and not self._wait_for_core(vcpu):
            return None
        assert vcore.core is not None
        return vcore.core.threads[vcpu.number % vcore.stride]

    def _wait_for_core(self, vcpu: VirtualCpu) -> bool:
        """Wait until the vCPU's virtual core has a core to run on; False where it was kicked first."""
        vcore, host = vcpu.vcore, self._host
        since = host.source.ticks()
        if vcore.core is None and vcore not in host.queue:
            self._queue(vcore, since)
        vcore.wanting += 1
        self._scheduler.wait(lambda: vcpu.kicked or vcore.can_be_joined or host.core_for(vcore) is not None)
        vcore.wanting -= 1
        # While its own virtual core was on its way out of its core, nobody kept it from running.
        vcpu.next_dispatch.waited_for_core(max(0, host.source.ticks() - max(since, vcore.queued_at)))
        if vcpu.kicked:
            if not vcore.wanting and vcore in host.queue:
                host.queue.remove(vcore)
            self._scheduler.changed()
            return False
        if not vcore.can_be_joined:
            core = host.core_for(vcore)
            assert core is not None
            host.queue.popleft()
            vcore.take(core, vcpu)
        return True

    def _enter_as_primary(self, vcore: VirtualCore, core: Core) -> None:
        # Threads that are ready come along now: they wait behind the switch, not for the next entry.
        self._scheduler.give_way()
        vcore.entered_with = vcore.offset
        try:
            core.applied = self._host.switch.enter(core.timebase, vcore.offset, self._host.observer)
        except (SwitchBreachError, NoTbu40Error) as error:
            vcore.failure = str(error)
            vcore.leave_soon()
        self._scheduler.changed()

    def _enter_as_secondary(self, vcpu: VirtualCpu, thread: HardwareThread) -> None:
        vcore, core = vcpu.vcore, thread.core
        self._scheduler.wait(lambda: vcore.failure is not None or self.secondary_may_enter(core))
        if not vcore.leaving and self._host.observer is not None:
            self._tell(SecondaryLetIn(core.number, thread.number, vcpu.number))

    def _await_secondaries(self, vcore: VirtualCore) -> int:
        """Wait until all threads have left the guest; return the tick at which they had."""
        self._scheduler.changed()
        self._scheduler.wait(lambda: vcore.out == len(vcore.inside))
        return self._source.ticks()

    def _await_host_time(self, vcore: VirtualCore) -> None:
        self._scheduler.changed()
        self._scheduler.wait(lambda: vcore.host_time_restored)

    def _restore_host_time(self, vcore: VirtualCore, core: Core) -> None:
        try:
            if core.applied is not None:
                self._host.switch.leave(core.timebase, self.to_take_away(core, vcore), self._host.observer)
                core.applied = None
        finally:
            # A mistake of ours ends this vCPU's run, and must cost neither the core nor the other threads.
            if core.applied is not None:
                core.timebase.load_from_tod()
                core.applied = None
            vcore.host_time_restored = True
            if core.hmer:
                self._host.maintenance.handle(core)

    def _release(self, vcore: VirtualCore, core: Core) -> None:
        vcore.give_back(core)
        if vcore.wanting:
            self._queue(vcore, self._host.source.ticks())

    def _queue(self, vcore: VirtualCore, now: int) -> None:
        vcore.queued_at = now
        self._host.enqueue(vcore, now)

    def _tell(self, event: Event) -> None:
        if self._host.observer is not None:
            self._host.observer(event)
