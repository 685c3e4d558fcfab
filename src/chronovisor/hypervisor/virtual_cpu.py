"""A virtual CPU: its run, from user space into the guest and back, as often as it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from chronovisor.engine.concrete import Reason, Stop
from chronovisor.engine.interface import Engine
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.access import Access
from chronovisor.hypervisor.account import Account
from chronovisor.hypervisor.cede import PROD_WORD, Cede
from chronovisor.hypervisor.debugged_run import DebuggedRun
from chronovisor.hypervisor.dispatch import Dispatch
from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.exits import Crashed, Debugged, Exit, FailedEntry, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.interrupts import PendingInterrupts
from chronovisor.hypervisor.kernel_hypercalls import KernelHypercalls
from chronovisor.hypervisor.scheduler import MOST_NAP
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.timer import Timer
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.hypervisor.vpa import Areas
from chronovisor.hypervisor.xics import XISR, Xics
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.registers import FILES, REGISTERS
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import CALL_ARGUMENTS
from chronovisor.papr.vpa import PreemptReason
from chronovisor.processor.core import HardwareThread
from chronovisor.processor.counters import RunningCounter, RunTime
from chronovisor.processor.live_registers import LiveRegisters
from chronovisor.timebase.decrementer import DecWidth
from chronovisor.timebase.run_trace import RunTrace
from chronovisor.timebase.trace import DispatchLogged
from chronovisor.timebase.types import GuestTime, Offset, SourceTime

# Plain numbers: an IntFlag's operators are slow, and their results would spread into the guest's state.
_EE, _ME, _HV, _ME_HV, _LD = map(int, (MSR.EE, MSR.ME, MSR.HV, MSR.ME | MSR.HV, LPCR.LD))
# A module-level name: looking a member up in an Enum takes as long as reading a clock.
_HYPERCALL = Reason.HYPERCALL
_DEBUG = (Reason.BREAKPOINT, Reason.WATCHPOINT)


class Machine(Protocol):
    """The machine that the vCPU belongs to."""

    memory: GuestMemory
    engine: Engine
    xics: Xics | None

    @property
    def has_memory(self) -> bool:
        """Whether `memory` is the guest's, and not a place holder."""

    @property
    def hypercalls(self) -> KernelHypercalls:
        """Answers the hypercalls of its vCPUs."""


class VirtualCpu:
    """A vCPU. Its public state is changed under the host's monitor, or by the thread that runs it."""

    def __init__(self, machine: Machine, host: Hypervisor, vcore: VirtualCore, number: int) -> None:
        self.machine: Machine = machine
        self.host: Hypervisor = host
        self.vcore: VirtualCore = vcore
        self.number = number
        self.thread_number: int = number % vcore.stride
        """The number of the hardware thread that it runs on, within its core."""
        self._scheduler = host.scheduler
        self.seat = host.scheduler.seat()
        self._queue = host.run_queue
        self._is_virtual = host.source.is_virtual
        self._large_width: DecWidth = host.cpu_model.large_decrementer
        # A vCPU that has its virtual core for itself runs when that does.
        self._run_time = None if vcore.stride == 1 else RunTime(host.source)
        run_time = self._run_time or vcore.run_time
        self.purr: RunningCounter = RunningCounter(run_time)
        self.spurr: RunningCounter = RunningCounter(run_time)
        self.timer = Timer(host.clock, vcore.offset)
        self.pending = PendingInterrupts(self.timer, host.scheduler)
        self.areas: Areas = Areas()
        self.log = DispatchLogWriter(self)
        self.next_dispatch = Dispatch()
        self.kicked = False
        """Whether its run is to end."""
        self.enter_anew = False
        """Whether its thread is to leave and enter once more, for what takes effect at an entry."""
        self.debugged = DebuggedRun(self)
        """What a debugger wants of its run."""
        self.trace: RunTrace | None = None
        """Told what happens in its runs; changed inside `access`."""
        self._cede = Cede(self, self.timer, self.pending, host.scheduler, host.source)
        self.prod: Callable[[], None] = self._cede.prod
        """Wakes it from H_CEDE: from the present one, otherwise from the next. From any thread."""
        self._account = Account(self.timer, host.scheduler, host.source, host.ticks_per_instruction)
        self._live = LiveRegisters(
            host.cores[0].threads[0],
            {"VTB": vcore.vtb, "PURR": self.purr, "SPURR": self.spurr},
            self.pending,
            self._account.settle,
            host.ticks_per_instruction,
            host.random_bits,
        )
        self._access = Access(host.scheduler)
        self.access: Callable[[], AbstractContextManager[None]] = self._access.taken
        """Keeps it outside its run while its registers are read and written; see `Access`."""
        self.state: Thread = machine.engine.thread(self._live)
        self._use_state()
        for name, value in (("PVR", host.cpu_model.pvr), ("PIR", number), ("PPR", 0)):
            self.state.set(name, value)

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory."""
        return self.machine.memory

    @property
    def prodded(self) -> bool:
        """Whether it wakes from its next H_CEDE at once."""
        return bool(self.state.shared.words[PROD_WORD])

    @property
    def ceded(self) -> bool:
        """Whether it has made H_CEDE and waits."""
        return self._cede.ceded

    # From any thread

    def kick(self) -> None:
        """End the run in progress, otherwise the next one, with `Kicked`."""
        self.kicked = True
        self.state.request_exit()
        self._scheduler.changed()

    def set_external(self, level: bool) -> None:
        """Raise or lower the external interrupt."""
        with self._scheduler.monitor:
            self.pending.level = level
            if level:
                self.state.most_nap = 0
            self.state.request_exit()
            self._scheduler.changed()

    def notice(self) -> None:
        """Have it see that the interrupt controller shows it an interrupt. From any thread."""
        self.state.notice_line()
        self._scheduler.changed()

    # Time, inside `access`

    @property
    def decrementer_expiry(self) -> GuestTime:
        """When DEC goes to -1, in guest time: what user space reads and sets."""
        return self.timer.expiry(self.vcore.offset)

    @decrementer_expiry.setter
    def decrementer_expiry(self, expiry: GuestTime) -> None:
        self.timer.set_expiry(expiry, self.vcore.offset)

    def set_offset(self, offset: Offset) -> None:
        """Set the offset of its virtual core.

        A decrementer that was never set (its expiry is 0) then expires now. Otherwise it would expire after
        years in a guest that is far ahead of its host.
        """
        never_set = offset and self.decrementer_expiry == GuestTime(0)
        self.vcore.set_offset(offset)
        if never_set:
            self.timer.expire()

    # What the world switch calls

    def begin(self, stay: Stay, thread: HardwareThread, now: SourceTime) -> None:
        """Load what the guest needs on `thread` at tick `now`: the core's timebase is the guest's."""
        state, vcore, trace = self.state, self.vcore, self.trace
        # A guest does not run in hypervisor state, and cannot turn machine checks off.
        if state.MSR & _ME_HV != _ME:
            state.set_msr((state.MSR | _ME) & ~_HV)
        lpcr = state.LPCR = vcore.lpcr
        state.DPDES = vcore.dpdes
        width = self._large_width if lpcr & _LD else 32
        self.timer.load(thread, width, vcore.offset, stay.entered_with, now)
        if self._run_time is not None:
            self._run_time.start(now)
        self._live.begin(thread, state)
        # A trace tells of each H_CEDE, and programs do not see the line that user space drives.
        stays_awake = self._is_virtual or self._queue.waiting or self.pending.level or trace is not None
        state.most_nap = 0 if stays_awake else MOST_NAP
        areas = self.areas
        # The other areas need this one.
        if areas.vpa.in_use or areas.vpa.pending:
            if areas.begin_dispatch(self.machine.memory):
                self.log.begin_anew()
            moment = self.log.dispatched(stay, thread, self.next_dispatch)
            if moment is not None and self.host.observer is not None:
                self.host.observer(DispatchLogged(self.number, moment))
        if trace is not None and (trace.told or not self.next_dispatch.is_plain):
            trace.entered(now, stay.entered_with, stay.core.number, self.next_dispatch.enqueued)

    def end(self, stay: Stay, now: SourceTime) -> None:
        """Stop at tick `now` what runs only in the guest; the core's timebase may still be the guest's."""
        if self.timer.thread is None:
            # It never began.
            return
        if self._run_time is not None:
            self._run_time.stop(now)
        if self.trace is not None and self.trace.told:
            self.trace.left(now, self._account.work)
        if self._cede.ceded:
            self.next_dispatch = Dispatch(PreemptReason.CEDE)
        elif stay.time_slice_over:
            self.next_dispatch = Dispatch(PreemptReason.TIME_SLICE)
        elif not self.next_dispatch.is_plain:
            self.next_dispatch = Dispatch()
        if self.areas.vpa.in_use:
            self.areas.end_dispatch(self.machine.memory)

    # The run

    def run(self, status: int | None = None, results: Sequence[int] = ()) -> Exit:
        """Run the guest on the calling thread until something needs user space.

        First the answer to the hypercall that the last run ended with goes into the registers, 64 bits each:
        its `status` into r3, its `results` into r4 and on.
        """
        scheduler, access = self._scheduler, self._access
        bound = self._is_virtual and scheduler.take_turn(self.seat)
        try:
            access.running = True
            if access.wanted:
                access.let_others_first()
            state, cede = self.state, self._cede
            if status is not None:
                state.gpr[3] = status
                if results:
                    state.gpr[4 : 4 + len(results)] = results
            cede.ceded = False
            if not self.machine.has_memory:
                return FailedEntry("the machine has no memory: set a memory region first")
            debugged, world_switch = self.debugged, self.host.world_switch
            while True:
                if self.kicked:
                    self.kicked = False
                    return Kicked()
                if (debugged.stepped or debugged.repetition is not None) and debugged.ends():
                    return Debugged(state.CIA, True)
                if cede.ceded:
                    cede.wait(None)
                    continue
                trace = self.trace
                if trace is not None:
                    if trace.told:
                        trace.entering()
                    else:
                        trace = None
                ended, stay = None, world_switch.enter(self)
                if stay is not None:
                    try:
                        ended = self._guest(stay) if stay.failure is None else FailedEntry(stay.failure)
                    finally:
                        world_switch.leave(self, stay)
                if trace is not None:
                    trace.out()
                if ended is not None:
                    return ended
        finally:
            access.running = False
            if access.wanted or self._is_virtual:
                scheduler.changed()
            if bound:
                scheduler.unbind(self.seat)

    def cede(self) -> None:
        """Answer H_CEDE: give the processor up until something is pending or it is prodded."""
        self.state.set_msr(self.state.MSR | _EE)
        with self._scheduler.monitor:
            self._cede.ceded = True

    def _guest(self, stay: Stay) -> Exit | None:
        """Run the guest's instructions until the thread has to leave."""
        engine, hypercalls = self.machine.engine, self.machine.hypercalls
        cede, pending, trace = self._cede, self.pending, self.trace
        state, debugged, queue = self.state, self.debugged, self._queue
        repeats = debugged.repetition is not None
        while True:
            # Clear the request first, then look for its reasons: none that comes in between is missed.
            state.exit_request = 0
            if self.kicked or stay.leaving or self.enter_anew or (queue.waiting and queue.time_is_up(stay)):
                break
            if repeats and debugged.is_at_its_end():
                return Debugged(state.CIA, True)
            if cede.ceded:
                cede.wait(stay)
                continue
            if debugged.single_step:
                return self._step()
            interrupt = pending.deliver(state, engine)
            if trace is not None and interrupt is not None:
                trace.interrupted(interrupt, self.timer.overdue() if interrupt == "DECREMENTER" else 0)
            if self._is_virtual:
                budget = self._account.budget(state.MSR, engine, trace is not None)
                if repeats:
                    # The budget may be 0 because a call of user space came at the end of its turn.
                    if not debugged.allowed(1):
                        return Debugged(state.CIA, True)
                    budget = debugged.allowed(budget)
                stop = engine.run(state, budget)
                self._account.settle()
                if repeats and debugged.passes(stop):
                    stop = engine.step(state)
                    self._account.settle()
            else:
                stop = engine.run(state, engine.budget)
            if stop.reason is _HYPERCALL:
                ended = hypercalls.answer(self) if trace is None else self._answer_told(trace)
            else:
                ended = self._other_end(stop)
                if trace is not None:
                    trace.executed(self._account.work)
            if ended is not None:
                return ended
            if self._is_virtual:
                self._account.give_way()
        if not (self.kicked or self.enter_anew or stay.leaving):
            stay.time_slice_over = True
        self.enter_anew = False
        return None

    def _answer_told(self, trace: RunTrace) -> Exit | None:
        """Answer a hypercall, and tell of one that is answered here."""
        number = self.state.gpr[3]
        begun = trace.now() if trace.times_calls else None
        ended = self.machine.hypercalls.answer(self)
        if ended is None:
            trace.called(number, begun)
        return ended

    def _step(self) -> Exit:
        """Execute one instruction for a debugger."""
        debugged, state = self.debugged, self.state
        stop = debugged.step(self.machine.engine)
        if stop is None:
            return Debugged(state.CIA, True)
        self._account.settle()
        ended = self.machine.hypercalls.answer(self) if stop.reason is _HYPERCALL else self._other_end(stop)
        if ended is None:
            return Debugged(state.CIA, True)
        debugged.stepped = not isinstance(ended, Debugged)
        return ended

    def begin_course(self) -> None:
        """Have what follows depend on its registers, its reservation and whether it was prodded alone.

        So it is with a vCPU that has just been given these. It is outside its run.
        """
        self.kicked, self.state.exit_request = False, 0
        self.next_dispatch = Dispatch()
        self.areas.begin_anew()
        self.log.forget_processor()
        self.vcore.forget_service()
        self._account.begin_turn()

    def _other_end(self, stop: Stop) -> Exit | None:
        """Why the run ends, if it does, when the engine has stopped for something else than a hypercall."""
        if stop.reason in _DEBUG:
            return Debugged(self.state.CIA, False, stop.watchpoint)
        return None if stop.crash is None else Crashed.of(self.number, self.state, stop.crash)

    def adopt_engine(self) -> None:
        """Go over to the machine's new engine with the same registers."""
        old, self.state = self.state, self.machine.engine.thread(self._live)
        for name, register in REGISTERS.items():
            if not register.live:
                self.state.set(name, old.get(name))
        for file in FILES.values():
            getattr(self.state, file.attribute)[:] = getattr(old, file.attribute)
        self.state.shared.words[:] = old.shared.words
        self._use_state()

    def _use_state(self) -> None:
        """Have all parts of the vCPU use the registers of `state`."""
        self.state.line_mask = XISR
        self.state.arguments = self.state.reader(4, CALL_ARGUMENTS)
        self.state.answers = self.machine.hypercalls.places
        self._account.adopt(self.state)
        self.pending.thread = self.state
