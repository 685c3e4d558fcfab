"""A virtual CPU: its run, from user space into the guest and back, as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chronovisor.engine.concrete import Reason
from chronovisor.hypervisor.dispatch_trace_log import Dispatch
from chronovisor.hypervisor.exits import Crashed, Exit, FailedEntry, Interrupted
from chronovisor.hypervisor.hypercalls import answer
from chronovisor.hypervisor.interrupts import PendingInterrupts, deliver, wakes
from chronovisor.hypervisor.live_registers import LiveRegisters, RunningCounter, RunTime
from chronovisor.hypervisor.vpa import Areas
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.registers import REGISTERS
from chronovisor.papr.vpa import DispatchReason, PreemptReason
from chronovisor.timebase.decrementer import DecWidth, rebased, remaining
from chronovisor.timebase.trace import DecrementerKept, DispatchLogged
from chronovisor.timebase.types import GuestTime, Offset, Ticks

if TYPE_CHECKING:
    from chronovisor.engine.concrete import Stop
    from chronovisor.engine.state import Thread
    from chronovisor.hypervisor.host import HardwareThread, Host
    from chronovisor.hypervisor.virtual_core import VirtualCore
    from chronovisor.hypervisor.virtual_machine import VirtualMachine

# As plain numbers: an IntFlag's operators are slow, and what they make would spread into the guest's state.
_EE, _ME, _HV, _LD = int(MSR.EE), int(MSR.ME), int(MSR.HV), int(LPCR.LD)
# By a name of its own: to look a member up in an Enum takes as long as a clock's reading.
_HYPERCALL = Reason.HYPERCALL


class VirtualCpu:
    """A vCPU. Its public state is changed under the host's monitor, or by the thread that runs it."""

    def __init__(self, machine: VirtualMachine, vcore: VirtualCore, number: int) -> None:
        self.machine: VirtualMachine = machine
        self.host: Host = machine.host
        self.vcore: VirtualCore = vcore
        self.number = number
        self.seat = self.host.scheduler.seat()
        self._is_virtual = self.host.source.is_virtual
        self._run_time = RunTime(self.host.source)
        self.purr: RunningCounter = RunningCounter(self._run_time)
        self.spurr: RunningCounter = RunningCounter(self._run_time)
        self._live = LiveRegisters(self)
        self.state: Thread = machine.engine.thread(self._live)
        for name, value in (("PVR", self.host.cpu_model.pvr), ("PIR", number), ("PPR", 0)):
            self.state.set(name, value)
        self.pending = PendingInterrupts()
        self.areas: Areas = Areas()
        self._log = self.host.parts.dispatch_trace_log(self)

        self.thread: HardwareThread | None = None
        """The hardware thread that it is on; None outside the guest."""
        self._expiry = GuestTime(0) - vcore.offset
        self._begun = False
        """Whether the thread has what it needs for the guest, and the decrementer with it."""
        self.ceded = False
        self.enter_anew = False
        """Whether the thread is to leave and enter once more, for what takes effect at an entry."""
        self._prodded = False
        self.kicked = False
        """Whether its run is to end."""
        self._running = False
        self._accesses = 0
        self.next_dispatch = Dispatch()
        self._accounted = 0
        self._turn_left = self.host.scheduler.quantum()
        self._horizon: int | None = None

    # From any thread

    def kick(self) -> None:
        """End the run in progress, or else the next one, with `Interrupted`."""
        self.kicked = True
        self.state.exit_request = 1
        self.host.scheduler.changed()

    def prod(self) -> None:
        """Wake it from H_CEDE, the one that it is in or else the next."""
        self._prodded = True
        self.host.scheduler.changed()

    def set_external(self, level: bool) -> None:
        """Raise or lower the external interrupt."""
        with self.host.scheduler.monitor:
            self.pending.external = level
            self.state.exit_request = 1
            self.host.scheduler.changed()

    @contextmanager
    def access(self) -> Iterator[None]:
        """Have the vCPU outside its run meanwhile: wait until it has left, keep it from running again.

        Its registers are read and written inside alone. Whoever does not want to wait for the guest kicks it
        first.
        """
        scheduler = self.host.scheduler
        with scheduler.monitor:
            self._accesses += 1
            try:
                scheduler.wait(lambda: not self._running)
                yield
            finally:
                self._accesses -= 1
                scheduler.changed()

    # Time

    @property
    def decrementer_width(self) -> DecWidth:
        """Bits of DEC as the guest has it now."""
        return self.host.cpu_model.large_decrementer if self.state.LPCR & _LD else 32

    @property
    def decrementer_expiry(self) -> GuestTime:
        """When DEC goes to -1, in guest time: what user space reads and sets. Only while it is out of the
        guest.
        """
        return self._expiry + self.vcore.offset

    @decrementer_expiry.setter
    def decrementer_expiry(self, expiry: GuestTime) -> None:
        self._expiry = expiry - self.vcore.offset

    def set_offset(self, offset: Offset) -> None:
        """Set the offset of its virtual core.

        A decrementer that was never set (its expiry is 0) then expires now: better at once than, in a guest
        that is far ahead of its host, after years.
        """
        never_set = offset and self.decrementer_expiry == GuestTime(0)
        self.vcore.set_offset(offset)
        if never_set:
            self._expiry = self.host.clock.now()

    def rebase_decrementer(self, old: Offset, new: Offset) -> None:
        """Keep the expiry in guest time while the offset changes."""
        self._expiry = rebased(self._expiry, old, new)

    def decrementer_pending(self) -> bool:
        """Whether the decrementer's exception exists."""
        if self.thread is not None:
            return self.thread.decrementer.asserted(self.decrementer_width)
        return remaining(self._expiry, self.host.clock.now()) < Ticks(0)

    def account_time(self) -> None:
        """Have a virtual clock show the time that its instructions up to now have taken."""
        executed = self.state.executed - self._accounted
        if executed:
            self._accounted = self.state.executed
            self._turn_left -= executed
            self.host.scheduler.pass_time(executed * self.host.ticks_per_instruction)

    def _decrementer_tick(self) -> int:
        """The tick of the clock at which the decrementer's exception comes to be, if it is not there yet."""
        if self.thread is None:
            return self.host.clock.ticks_at(self._expiry) + 1
        left = self.thread.decrementer.read(self.decrementer_width)
        return self.host.source.ticks() + left + 1

    # What the world switch calls

    def begin(self, thread: HardwareThread, now: int) -> None:
        """Load what a thread of the guest needs at tick `now`, its core's timebase being the guest's: its run
        begins.
        """
        state, vcore = self.state, self.vcore
        # A guest runs in no hypervisor state, and cannot turn machine checks off.
        if state.MSR & (_ME | _HV) != _ME:
            state.set_msr((state.MSR | _ME) & ~_HV)
        state.LPCR, state.DPDES = vcore.lpcr, vcore.dpdes
        self._begun = True
        expiry = self._expiry
        if vcore.offset is not vcore.entered_with:
            # The guest has the time that was applied, whatever was set since: DEC + G is to be the expiry in
            # that.
            expiry = rebased(expiry, vcore.offset, vcore.entered_with)
        thread.decrementer.load(expiry, now)
        self._run_time.start(now)
        self._live.begin(thread)
        if self.areas.any:
            self._log_dispatch(thread)

    def _log_dispatch(self, thread: HardwareThread) -> None:
        if self.areas.begin_dispatch(self.machine.memory):
            self._log.begin_anew()
        if self.areas.vpa.in_use:
            moment = self._log.dispatched(thread, self.next_dispatch)
            if moment is not None and self.host.observer is not None:
                self.host.observer(DispatchLogged(self.number, moment))

    def end(self, now: int) -> None:
        """Stop at tick `now` what runs only in the guest; its core's timebase may still be the guest's."""
        if self._begun:
            self._run_time.stop(now)
            if self.ceded or self.vcore.time_slice_over or not self.next_dispatch.is_plain:
                self.next_dispatch = Dispatch(self._preempted_by())
            if self.areas.vpa.in_use:
                self.areas.end_dispatch(self.machine.memory)

    def _preempted_by(self) -> PreemptReason:
        """Why it leaves the guest now."""
        if self.ceded:
            return PreemptReason.CEDE
        return PreemptReason.TIME_SLICE if self.vcore.time_slice_over else PreemptReason.FIRMWARE_EVENT

    def keep_decrementer(self, thread: HardwareThread, now: int) -> None:
        """Keep when the decrementer expires, in host time, as it was at tick `now`. `thread`'s core is in the
        host again.

        The guest set DEC under the offset that was applied. Where a sibling has set another since, the guest
        time of the expiry stays.
        """
        if not self._begun:
            return
        self._begun = False
        vcore = self.vcore
        expiry = thread.decrementer.expiry(thread.core.timebase, self.decrementer_width, now)
        if vcore.offset is not vcore.entered_with:
            expiry = rebased(expiry, vcore.entered_with, vcore.offset)
        self._expiry = expiry
        if self.host.observer is not None:
            self.host.observer(DecrementerKept(self.number, self._expiry))

    # The run

    def run(self, answer: Sequence[int] = ()) -> Exit:
        """Run the guest on the calling thread until something needs user space.

        First of all the `answer` to the hypercall that the last run ended with goes into r3 and on: 64 bits
        each.
        """
        scheduler = self.host.scheduler
        bound = self._is_virtual and scheduler.take_turn(self.seat)
        try:
            # Said first, then looked: of two that come at once at least one sees the other.
            self._running = True
            if self._accesses:
                self._let_access()
            if answer:
                self.state.gpr[3 : 3 + len(answer)] = answer
            self.ceded = False
            if not self.machine.has_memory:
                return FailedEntry("the machine has no memory: set a memory region first")
            while (ended := self._dispatch()) is None:
                pass
            return ended
        finally:
            self._running = False
            scheduler.changed()
            if bound:
                scheduler.unbind(self.seat)

    def _let_access(self) -> None:
        """Let whoever wants to access the vCPU outside its run do so first."""
        scheduler = self.host.scheduler
        with scheduler.monitor:
            self._running = False
            scheduler.changed()
            scheduler.wait(lambda: not self._accesses)
            self._running = True

    def cede(self) -> None:
        """Answer H_CEDE: give the processor up until something is pending, unless it was prodded
        meanwhile.
        """
        self.state.set_msr(self.state.MSR | _EE)
        with self.host.scheduler.monitor:
            self.ceded = True

    def _dispatch(self) -> Exit | None:
        """Go into the guest once and come out; return why the run ends, None where it goes on."""
        if self.kicked:
            self.kicked = False
            return Interrupted()
        if self.ceded:
            self._block()
            return None
        if not self.host.world_switch.enter(self):
            return None
        try:
            failure = self.vcore.failure
            return FailedEntry(failure) if failure is not None else self._guest()
        finally:
            self.host.world_switch.leave(self)

    def _block(self) -> None:
        """Wait, with no core, for what ends H_CEDE or the run."""
        scheduler, source = self.host.scheduler, self.host.source
        begun = source.ticks()
        with scheduler.monitor:
            scheduler.wait(lambda: self.kicked or self._wakes(), self._decrementer_tick)
            if not self._wakes():
                return
            reason, now = self._woken_by(), source.ticks()
            # What a decrementer wakes was ready when that expired, however late its thread looked.
            ready = self._decrementer_tick() if reason is DispatchReason.DECREMENTER_INTERRUPT else now
            ready = min(max(begun, ready), now)
            self.next_dispatch.woken(reason, ready - begun, now - ready)
            self._look_awake()

    def _woken_by(self) -> DispatchReason:
        """What ends its H_CEDE, the most urgent first."""
        pending = self.pending
        if pending.system_reset:
            return DispatchReason.SYSTEM_RESET
        if pending.machine_check is not None:
            return DispatchReason.FIRMWARE_EVENT
        if pending.external:
            return DispatchReason.EXTERNAL_INTERRUPT
        return DispatchReason.DECREMENTER_INTERRUPT if self.decrementer_pending() else DispatchReason.PROD

    def _nap(self) -> None:
        """Wait on the hardware thread while siblings run, for what ends H_CEDE or the virtual core's stay."""
        scheduler = self.host.scheduler
        with scheduler.monitor:
            if self.vcore.all_ceded and not self._wakes():
                # Nobody runs the guest: the core is better given back.
                self.vcore.leave_soon()
                scheduler.changed()
            scheduler.wait(
                lambda: self.kicked or self.vcore.leaving or self._wakes(),
                self._decrementer_tick,
            )
            self._look_awake()

    def _wakes(self) -> bool:
        return self._prodded or wakes(self)

    def _look_awake(self) -> None:
        if self._wakes():
            self._prodded = self.ceded = False

    def _guest(self) -> Exit | None:
        """Run the guest's instructions until the thread has to leave."""
        engine = self.machine.engine
        while not self._has_to_leave():
            if self.ceded:
                self._nap()
                continue
            deliver(self)
            stop = engine.run(self.state, self._virtual_budget() if self._is_virtual else engine.budget)
            if self._is_virtual:
                self.account_time()
            ended = answer(self) if stop.reason is _HYPERCALL else self._crashed(stop)
            if ended is not None:
                return ended
            if self._is_virtual and (self._turn_left <= 0 or self._others_due()):
                self._turn_left = self.host.scheduler.quantum()
                self.host.scheduler.give_way()
        if not (self.kicked or self.enter_anew or self.vcore.leaving):
            self.vcore.time_slice_over = True
        self.enter_anew = False
        return None

    def _has_to_leave(self) -> bool:
        # First the request is cleared, then its reasons are looked at: one that comes between is seen.
        self.state.exit_request = 0
        vcore = self.vcore
        return self.kicked or vcore.leaving or self.enter_anew or (bool(self.host.queue) and vcore.time_is_up)

    def _virtual_budget(self) -> int:
        """How many instructions may be executed, in virtual time, before anything can be due."""
        expiry = self._decrementer_tick()
        # One to come counts with interrupts off too: the guest may set MSR[EE] without coming back here.
        due = [expiry] if self.state.MSR & _EE or expiry > self.host.source.ticks() else []
        self._horizon = self.host.scheduler.horizon()
        if self._horizon is not None:
            due.append(self._horizon)
        # Turns have an end only where there is somebody to take one.
        most = self.machine.engine.budget if self.host.scheduler.alone() else self._turn_left
        if not due:
            return most
        ticks = max(1, min(due) - self.host.source.ticks())
        return min(most, -(-ticks // self.host.ticks_per_instruction))

    def _others_due(self) -> bool:
        """Whether the moment has come that somebody else waits for."""
        return self._horizon is not None and self.host.source.ticks() >= self._horizon

    def _crashed(self, stop: Stop) -> Crashed | None:
        state, crash = self.state, stop.crash
        if crash is None:
            return None
        name = crash.interrupt.lower().replace("_", " ")
        article = "an" if name[0] in "aeiou" else "a"
        return Crashed(
            vector=crash.vector,
            srr0=state.get("SRR0"),
            srr1=state.get("SRR1"),
            message=(
                f"vCPU {self.number}: {article} {name} interrupt came at {crash.address:#x} "
                f"(DAR {crash.dar:#x}), and its handler at {crash.vector:#x} raises an interrupt at its "
                "first instruction, for ever"
            ),
        )

    def adopt_engine(self) -> None:
        """Go over to the machine's new engine with the same registers."""
        old, self.state = self.state, self.machine.engine.thread(self._live)
        for name, register in REGISTERS.items():
            if not register.live:
                self.state.set(name, old.get(name))
        self.state.gpr[:] = old.gpr
        self._accounted = 0
