"""Every order in which threads can go on: production code that waits and is woken runs under a scheduler of
ours, which asks a case who is next.

Each actor is a thread of its own, of which exactly one runs at a time. What an actor does from one point at
which others could come between to the next is a *step*: those points are where it takes the monitor after it
has done something that others see, where it waits, where it gives way, and where its guest runs. What runs
under the monitor is one step in production, too, since every other thread needs the monitor to go on.

Whoever waits sleeps until someone says that something `changed`, and looks then: where production code forgot
to say so nobody is woken here either, and that someone sleeps for ever is an outcome like others.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import TypeAlias

from chronovisor.hypervisor.scheduler import QUANTUM, Seat, Until, never
from chronovisor.proof.paths import Case
from chronovisor.timebase.types import SourceTime

Place: TypeAlias = tuple[object, ...]
"""Where an actor stands: the instructions that its functions are at, the outermost last."""


class _Abandoned(BaseException):
    """The course that the actor is part of is not followed any further."""


class Actor:
    """One of those who take steps."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.finished = False
        self.place: Place = ()
        self.waits_for: Callable[[], bool] | None = None
        """What it waits for; None where nothing but its turn keeps it."""
        self.awake = True
        """Whether it looks if that has come."""
        self.turn = threading.Semaphore(0)

    @property
    def can_go_on(self) -> bool:
        """Whether the next step may be its."""
        return self.awake and not self.finished


class Interleaving:
    """A scheduler for the hypervisor under which `run` has actors take their steps in one order.

    `state` says what the future depends on besides the places at which the actors stand: of one actor, or
    (for None) of what they share. Actors in equal states are interchangeable. Without it every order is
    followed to its end. `after_each` is called after each step.

    With `departures` only some orders are explored: an actor goes on until it cannot, then the next one in
    turn; each actor that is passed over is a departure from that, and there are at most so many.
    """

    def __init__(
        self,
        case: Case,
        state: Callable[[Actor | None], Hashable],
        after_each: Callable[[], None],
        departures: int | None = None,
        merges: bool = True,
    ) -> None:
        self._departures = departures
        self._last = 0
        self._case = case
        self._merges = merges
        self._state = state
        self._after_each = after_each
        self._actors: list[Actor] = []
        self._running: Actor | None = None
        self._depth = 0
        self._seen = False
        """Whether the running actor has done in this step what others can see."""
        self.step = 0
        """How many steps were begun."""
        self.over = False
        """Whether nobody is to take a step any more: what is left of the actors is no part of the course."""
        self._failure: BaseException | None = None
        self._end = threading.Semaphore(0)

    # What production code sees

    @property
    @contextmanager
    def monitor(self) -> Iterator[bool]:
        """The lock: nobody else has it where an actor begins a step."""
        if not self._depth and self._seen:
            self.pause()
        self._depth += 1
        try:
            yield True
        finally:
            self._depth -= 1
            self._seen = True

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

    def alone(self) -> bool:
        """Return False: there are others."""
        return False

    def quantum(self) -> int:
        """Return a turn's instructions; no turn ends by them here."""
        return QUANTUM

    def pass_time(self, ticks: int) -> None:
        """Do nothing: time passes by itself."""

    def horizon(self) -> SourceTime | None:
        """Return None."""
        return None

    def give_way(self) -> None:
        """Let others come between, the monitor given up meanwhile."""
        self.pause()

    def wait(self, ready: Callable[[], bool], until: Until = never) -> None:
        """Sleep until `ready()`: looked at once, and after each `changed`."""
        actor = self._running
        while not ready():
            if actor is not None:
                actor.waits_for, actor.awake = ready, False
            self.pause()
            if actor is not None:
                actor.waits_for = None

    def changed(self) -> None:
        """Have everyone who waits look, once the monitor is free."""
        self._seen = True
        for actor in self._actors:
            actor.awake = True

    def pause(self) -> None:
        """End a step: others may come between, until the actor that calls has its next turn."""
        actor = self._running
        if self.over or actor is None:
            raise _Abandoned
        depth, self._depth = self._depth, 0
        actor.place = _place()
        if self._pass_on() is not actor:
            actor.turn.acquire()
        if self.over:
            raise _Abandoned
        self._running, self._depth, self._seen = actor, depth, False

    # The order of steps

    def run(self, actors: list[Actor]) -> None:
        """Have all actors take their steps in the order that the case chooses, until all have finished."""
        self._actors = actors
        for actor in actors:
            _threads.hand_over(partial(self._act, actor))
        self._pass_on()
        self._end.acquire()
        self.over = True
        for actor in actors:
            # Those who have not finished end where they are.
            actor.turn.release()
        if self._failure is not None:
            raise self._failure

    def _pass_on(self) -> Actor | None:
        """Let the case choose whose step is next; None where the course is over. In the thread that has ended
        its step.
        """
        try:
            if self.step:
                self._after_each()
            for actor in self._actors:
                # A look that finds nothing is no step: who is woken for nothing sleeps on.
                if actor.awake and actor.waits_for is not None and not actor.waits_for():
                    actor.awake = False
            if not all(actor.finished for actor in self._actors):
                return self._next()
        except BaseException as failure:
            self._failure = failure
        self.over = True
        self._end.release()
        return None

    def _next(self) -> Actor:
        if self._merges:
            self._case.merge(self._whole)
        self._case.require("nobody waits for ever", any(actor.can_go_on for actor in self._actors))
        self.step += 1
        number = self._case.choose(f"step {self.step}: who goes on", self._able)
        if self._departures is not None:
            passed, number = divmod(number, len(self._actors))
            self._departures -= passed
            self._last = number
        actor = self._actors[number]
        self._case.tell(lambda: f"{actor.name} goes on")
        if actor is not self._running:
            self._running, self._depth, self._seen = actor, 0, False
            actor.turn.release()
        return actor

    def _whole(self) -> Hashable:
        each = [
            (hash((actor.place, actor.finished, actor.awake, self._state(actor)))) for actor in self._actors
        ]
        if self._departures is not None:
            return self._departures, tuple(each[self._last :] + each[: self._last]), self._state(None)
        return tuple(sorted(each)), self._state(None)

    def _able(self) -> list[int]:
        """The numbers of the actors that can go on, of those that are interchangeable one; where departures
        count, each with how many were passed over.
        """
        count = len(self._actors)
        able: dict[Hashable, int] = {}
        for number in range(self._last, self._last + count):
            actor = self._actors[number % count]
            if actor.can_go_on:
                able.setdefault((actor.place, self._state(actor)), number % count)
        if self._departures is None:
            return list(able.values())
        return [passed * count + number for passed, number in enumerate(able.values())][
            : self._departures + 1
        ]

    def _act(self, actor: Actor) -> None:
        actor.turn.acquire()
        if self.over:
            return
        try:
            actor.work()
        except _Abandoned:
            return
        except BaseException as failure:
            if not self.over:
                self._failure, self.over = failure, True
                self._end.release()
            return
        if self.over:
            return
        actor.finished, actor.place = True, ()
        self._running = None
        self._pass_on()


def _place() -> Place:
    frame: FrameType | None = sys._getframe(2)
    found = []
    while frame is not None and frame.f_code is not Interleaving._act.__code__:
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


class _Threads:
    """Threads that are kept for the next who needs one: making them would take longer than what they do."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def hand_over(self, work: Callable[[], None]) -> None:
        """Have some thread do it."""
        if self._idle:
            self._idle.pop().put(work)
            return
        queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        queue.put(work)
        threading.Thread(target=self._serve, args=(queue,), name="actor", daemon=True).start()

    def _serve(self, queue: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            queue.get()()
            self._idle.append(queue)


_threads = _Threads()
