"""What a vCPU's instructions take in virtual time, and how many it may execute in one go."""

from __future__ import annotations

from chronovisor.engine.interface import Engine
from chronovisor.engine.state import Thread
from chronovisor.hypervisor.scheduler import QUANTUM, Scheduler
from chronovisor.hypervisor.timer import Timer
from chronovisor.isa.bits import MSR
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.run_trace import Work

# A plain number: an IntFlag's operators are slow.
_EE = int(MSR.EE)


class Account:
    """The instructions of one vCPU, counted against the clock and against its turn.

    `state` is the thread that executes them; `adopt` replaces it.
    """

    def __init__(
        self, timer: Timer, scheduler: Scheduler, source: TickSource, ticks_per_instruction: int
    ) -> None:
        self._timer = timer
        self._scheduler = scheduler
        self._source = source
        self._ticks_per_instruction = ticks_per_instruction
        self._state: Thread | None = None
        self._accounted = 0
        self._turn_left = scheduler.quantum()
        self._horizon: int | None = None

    def adopt(self, state: Thread) -> None:
        """Count the instructions of this thread from now on."""
        self._state = state
        self._accounted = state.executed

    def begin_turn(self) -> None:
        """Have its next turn be a whole one."""
        self._turn_left = self._scheduler.quantum()

    def settle(self) -> None:
        """Make a virtual clock show the time that the instructions up to now have taken."""
        state = self._state
        if state is None:
            return
        executed = state.executed - self._accounted
        if executed:
            self._accounted = state.executed
            self._turn_left -= executed
            if self._turn_left < 0:
                # It was alone, and executed in pieces as its evaluator likes. Whoever comes now must not find
                # another place in its turn for that.
                self._turn_left = (self._turn_left - 1) % QUANTUM + 1
            self._scheduler.pass_time(executed * self._ticks_per_instruction)

    def work(self) -> Work:
        """Return what the vCPU has done without telling. It must have a thread."""
        state = self._state
        assert state is not None
        return Work(
            state.executed,
            state.hypercalls_answered,
            state.entered_natively("DECREMENTER"),
            state.entered_natively("EXTERNAL"),
            state.entered_natively("DATA_STORAGE") + state.entered_natively("INSTRUCTION_STORAGE"),
        )

    def budget(self, msr: int, engine: Engine, told: bool) -> int:
        """Return how many instructions may be executed in virtual time before anything can be due that the
        engine does not see to by itself.

        If the decrementer's interrupts are to be `told`, one by one, the engine does not enter them itself.
        """
        state, alone = self._state, self._scheduler.alone()
        assert state is not None
        expiry = self._timer.due()
        # An expiry to come counts with interrupts off too: the guest may set MSR[EE] before it comes back.
        counts = bool(msr & _EE) or expiry > self._source.ticks()
        # While others wait for their turn, runs are short anyway.
        enters = engine.enter_decrementer(state, alone and not told)
        due = [expiry] if counts and not enters else []
        self._horizon = self._scheduler.horizon()
        if self._horizon is not None:
            due.append(self._horizon)
        # A turn ends only if somebody else can take one.
        most = engine.budget if alone else self._turn_left
        if not due:
            return most
        ticks = max(1, min(due) - self._source.ticks())
        return min(most, -(-ticks // self._ticks_per_instruction))

    def give_way(self) -> None:
        """Let others run, if the turn is over or the moment has come that somebody waits for."""
        others_due = self._horizon is not None and self._source.ticks() >= self._horizon
        if self._turn_left <= 0 or others_due:
            self._turn_left = self._scheduler.quantum()
            self._scheduler.give_way()
