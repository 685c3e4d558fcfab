"""Which vCPU runs when: in real time all run in parallel, in virtual time one at a time in a repeatable
order.

Both schedulers give the hypervisor one monitor (a lock and a condition) and one way to wait. The hypervisor
changes its state only under the monitor. Code that changes something that others may wait for calls
`changed`.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol
from weakref import WeakValueDictionary

from chronovisor.timebase.clock import TickSource, VirtualTime
from chronovisor.timebase.types import FREQUENCY, SourceTime, Ticks

QUANTUM = 1000
"""The most instructions that a vCPU executes before others have their turn in virtual time."""

POLLED = Ticks.from_ns(25_000).value
"""How long before its deadline a wait looks at the clock instead of sleeping, in ticks. A machine wakes a
thread about so much late.
"""

MOST_NAP = Ticks.from_ns(1_000_000).value
"""How long a vCPU in H_CEDE may keep its core, in ticks: it is back in the guest sooner than if it gave the
core up.
"""
assert MOST_NAP < FREQUENCY, "native code sleeps for less than a second"

Until = Callable[[], SourceTime | None]
"""Returns the tick of the clock at which a wait ends in any case, or None for never. It is called again
whenever something changed.
"""


def never() -> SourceTime | None:
    """Return no deadline."""
    return None


class Seat:
    """A vCPU's place in the order of turns; it means nothing in real time."""

    __slots__ = ("bound", "ready", "until")

    def __init__(self) -> None:
        self.bound = False
        self.ready: Callable[[], bool] | None = None
        self.until: Until = never

    def runnable(self, now: SourceTime) -> bool:
        """Whether its thread can continue at tick `now`: it does not wait, or its wait is over."""
        if not self.bound:
            return False
        if self.ready is None or self.ready():
            return True
        deadline = self.until()
        return deadline is not None and now >= deadline


class Monitor(AbstractContextManager[bool], Protocol):
    """A lock that the thread that holds it may take again."""

    def acquire(self) -> bool:
        """Take it."""

    def release(self) -> None:
        """Give it back."""


class Scheduler(Protocol):
    """What the hypervisor asks of a scheduler."""

    @property
    def monitor(self) -> Monitor:
        """The lock; the thread that holds it may take it again."""

    def seat(self) -> Seat:
        """Return a seat for a new vCPU, behind all others."""

    def drop(self, seat: Seat) -> None:
        """Forget the seat of a vCPU that no longer exists."""

    def bind(self, seat: Seat) -> None:
        """Count the vCPU among those that take turns: its turn comes, whatever its thread does now."""

    def unbind(self, seat: Seat) -> None:
        """Stop counting it, until it is bound again."""

    def take_turn(self, seat: Seat) -> bool:
        """Wait for the turn of the vCPU that the calling thread runs; return whether this call bound it."""

    def give_way(self) -> None:
        """Let others have their turn first, if there are turns."""

    def alone(self) -> bool:
        """Whether only the caller takes turns."""

    def wait(self, ready: Callable[[], bool], until: Until = never) -> None:
        """Return when `ready()` holds or the clock has reached `until()`. Call it with the monitor held.

        The monitor is released meanwhile. `ready` and `until` are called under it, by any thread, and must
        not wait themselves.
        """

    def changed(self) -> None:
        """Wake every thread that waits, to check its condition again. From any thread."""

    def quantum(self) -> int:
        """Return how many instructions the next turn has, if there are turns."""

    def pass_time(self, ticks: int) -> None:
        """Report that the calling thread's guest has used `ticks`, which moves a virtual clock."""

    def horizon(self) -> SourceTime | None:
        """Return the next tick at which something is due; the running guest must not run past it."""


class Parallel:
    """Real time: every vCPU's thread runs whenever it can."""

    def __init__(self, source: TickSource) -> None:
        self._source = source
        self.monitor = threading.RLock()
        self._condition = threading.Condition(self.monitor)
        self._waiting = 0
        self._punctual = threading.local()

    def seat(self) -> Seat:
        """Return a seat; it means nothing here."""
        return Seat()

    def drop(self, seat: Seat) -> None:
        """Do nothing."""

    def bind(self, seat: Seat) -> None:
        """Do nothing."""

    def unbind(self, seat: Seat) -> None:
        """Do nothing."""

    def take_turn(self, seat: Seat) -> bool:
        """Return at once."""
        return False

    def give_way(self) -> None:
        """Do nothing: the machine's own scheduler does this."""

    def alone(self) -> bool:
        """Return True: there are no turns."""
        return True

    def wait(self, ready: Callable[[], bool], until: Until = never) -> None:
        """Wait for `ready()`, at most until the clock has reached `until()`."""
        # Count first, then look. If a change is made without the monitor, either `changed` sees that this
        # thread waits, or this thread sees the change.
        self._waiting += 1
        if not hasattr(self._punctual, "thread"):
            self._punctual.thread = _be_punctual()
        try:
            while not ready():
                deadline = until()
                if deadline is None:
                    self._condition.wait()
                    continue
                left = deadline - self._source.ticks()
                if left <= 0:
                    return
                left -= POLLED
                if left > 0:
                    self._condition.wait(min(left / self._source.frequency, threading.TIMEOUT_MAX))
        finally:
            self._waiting -= 1

    def changed(self) -> None:
        """Wake every thread that waits."""
        if self._waiting:
            with self.monitor:
                self._condition.notify_all()

    def quantum(self) -> int:
        """Return the instructions of a turn; no thread waits for its end."""
        return QUANTUM

    def pass_time(self, ticks: int) -> None:
        """Do nothing: time passes by itself."""

    def horizon(self) -> SourceTime | None:
        """Return None: guests look at the clock often enough."""
        return None


_PR_SET_TIMERSLACK = 29


def _be_punctual() -> bool:
    """Make the machine wake the calling thread when its wait is over, and not up to 50 µs later together with
    others; return False if the machine cannot.
    """
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0) == 0)
    except AttributeError:
        # Not Linux.
        return False


class Turns:
    """Virtual time: exactly one bound vCPU's thread runs at a time, and its instructions move the clock.

    A turn ends when its quantum of instructions is used up, when the thread waits, or when it is unbound. The
    clock of the real machine never ends it, so the same scenario always takes the same course. Turns go round
    in the order in which the vCPUs were made, over all hosts on the clock. With `drawn_from` the next turn
    goes to any vCPU that can run, for any number of instructions up to the quantum. If no vCPU can run, the
    clock jumps to the next deadline or alarm.
    """

    def __init__(self, source: VirtualTime, drawn_from: random.Random | None = None) -> None:
        self._source = source
        self._drawn_from = drawn_from
        self.monitor = threading.Condition(threading.RLock())
        self._seats: list[Seat] = []
        self._holder: Seat | None = None
        self._choosing = False
        self._mine = threading.local()

    def seat(self) -> Seat:
        """Return a new seat, the last in the round."""
        with self.monitor:
            seat = Seat()
            self._seats.append(seat)
            return seat

    def drop(self, seat: Seat) -> None:
        """Take the seat out of the round."""
        with self.monitor:
            self.unbind(seat)
            if seat in self._seats:
                self._seats.remove(seat)

    def bind(self, seat: Seat) -> None:
        """Count the seat in: from now on it has turns."""
        with self.monitor:
            if not seat.bound:
                seat.bound = True
                seat.ready = None
                if self._holder is None:
                    self._pass_on()

    def unbind(self, seat: Seat) -> None:
        """Count the seat out; if it has the turn, the turn passes on."""
        with self.monitor:
            if seat.bound:
                seat.bound = False
                if self._holder is seat:
                    self._pass_on()

    def take_turn(self, seat: Seat) -> bool:
        """Wait for the seat's turn, which it keeps until it waits, gives way or is unbound."""
        with self.monitor:
            self._mine.seat = seat
            bound = not seat.bound
            if bound:
                self.bind(seat)
            self._await_turn(seat)
            return bound

    def give_way(self) -> None:
        """Let every other seat that can run have its turn first."""
        with self.monitor:
            seat = self._own()
            if seat is not None:
                self._pass_on()
                self._await_turn(seat)

    def alone(self) -> bool:
        """Whether at most one vCPU is bound."""
        with self.monitor:
            return sum(seat.bound for seat in self._seats) <= 1

    def wait(self, ready: Callable[[], bool], until: Until = never) -> None:
        """Pass the turn on until `ready()` holds or the clock has reached `until()`."""
        seat = self._own()
        if seat is None:
            self._wait_outside(ready, until)
            return
        # An alarm that is called while the caller waits may itself wait.
        before = seat.ready, seat.until
        seat.ready, seat.until = ready, until
        if not seat.runnable(self._source.ticks()):
            self._pass_on()
            self._await_turn(seat)
        seat.ready, seat.until = before

    def changed(self) -> None:
        """Wake every thread that waits. If every vCPU was blocked, one of them may be able to run now."""
        with self.monitor:
            if self._holder is None:
                self._pass_on()
            self.monitor.notify_all()

    def quantum(self) -> int:
        """Return how many instructions the next turn has."""
        return QUANTUM if self._drawn_from is None else self._drawn_from.randint(1, QUANTUM)

    def pass_time(self, ticks: int) -> None:
        """Advance the clock, and call the alarms on the way."""
        if ticks:
            self._source.advance(ticks)

    def horizon(self) -> SourceTime | None:
        """Return the tick of the next alarm or of the next deadline of a vCPU that waits."""
        with self.monitor:
            deadlines = [seat.until() for seat in self._seats if seat.bound and seat.ready is not None]
            return min((d for d in (*deadlines, self._source.next_alarm()) if d is not None), default=None)

    def _own(self) -> Seat | None:
        """Return the calling thread's seat if it has the turn; other threads are outside the order of
        turns."""
        seat: Seat | None = getattr(self._mine, "seat", None)
        return seat if seat is not None and self._holder is seat else None

    def _wait_outside(self, ready: Callable[[], bool], until: Until) -> None:
        while not ready():
            deadline = until()
            if deadline is not None and self._source.ticks() >= deadline:
                return
            self.monitor.wait()

    def _await_turn(self, seat: Seat) -> None:
        while self._holder is not seat:
            self.monitor.wait()

    def _pass_on(self) -> None:
        """Give the turn to the next seat that can run; move the clock forward until one can."""
        if self._choosing:
            return
        self._choosing = True
        try:
            self._holder = self._choose()
        finally:
            self._choosing = False
        self.monitor.notify_all()

    def _choose(self) -> Seat | None:
        first = self._seats.index(self._holder) + 1 if self._holder in self._seats else 0
        while any(seat.bound for seat in self._seats):
            now = self._source.ticks()
            runnable = (seat for seat in (*self._seats[first:], *self._seats[:first]) if seat.runnable(now))
            if (seat := next(runnable, None)) is not None:
                return seat if self._drawn_from is None else self._drawn_from.choice([seat, *runnable])
            due = self.horizon()
            if due is None:
                return None
            self._source.sleep_until(due)
        return None


# Keyed by identity. The turns keep their clock alive, so no other clock can have its id while the entry
# exists.
_turns: WeakValueDictionary[int, Turns] = WeakValueDictionary()


def scheduler_for(source: TickSource) -> Scheduler:
    """Return the scheduler of a host on `source`: one for all hosts on a virtual clock, otherwise a new
    one."""
    if not isinstance(source, VirtualTime):
        return Parallel(source)
    turns = _turns.get(id(source))
    if turns is None:
        turns = _turns[id(source)] = Turns(source)
    return turns


def draw_turns(source: VirtualTime, seed: int) -> Turns:
    """Make the hosts that are made on `source` from now on take turns in an order drawn from `seed`.

    The same seed and scenario give the same order. Keep the returned object until the first host is made.
    """
    turns = _turns[id(source)] = Turns(source, random.Random(seed))
    return turns
