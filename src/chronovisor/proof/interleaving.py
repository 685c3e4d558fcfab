"""Every order in which threads can take their steps.

Production code that waits and is woken runs under the scheduler in this module. The scheduler asks the case
which actor takes the next step.

Each actor has a thread of its own, and exactly one thread runs at a time. A *step* goes from one point at
which other threads can act to the next such point. These points are: the actor takes the monitor after it has
done something that others can see; it waits; it gives way; its guest runs. In production, too, what runs
under the monitor is one step, since every other thread needs the monitor to continue.

An actor that waits sleeps until another actor calls `changed`, and then checks its condition again. If
production code forgets to call `changed`, no actor wakes here either; an actor that then sleeps for ever is
reported as a broken requirement.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable
from functools import cache, partial
from hashlib import blake2b
from itertools import islice
from queue import SimpleQueue
from types import CodeType, FrameType
from typing import TypeAlias

from chronovisor.hypervisor.scheduler import QUANTUM, Seat, Until, never
from chronovisor.proof.paths import Case
from chronovisor.timebase.types import SourceTime

Place: TypeAlias = tuple[tuple[str, object], ...]
"""Where each of an actor's functions is, the outermost function last: its name, and lines and columns in its
source. The compiler makes several copies of some lines (a loop's condition, say); from each the same follows.
"""


class _Signal:
    """Lets one thread wait until another one has given the signal, at most once before each wait.

    A bare lock: `threading.Semaphore` takes several times as long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.wait = self._lock.acquire

    def give(self) -> None:
        """Give the signal. To give it twice has no effect."""
        if self._lock.locked():
            self._lock.release()


class _Abandoned(BaseException):
    """The course of the case is over, so the actor ends too."""


class Actor:
    """A thread that takes steps."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.work = work
        self.finished = False
        self.place: Place = ()
        self.waits_for: Callable[[], bool] | None = None
        """The condition that it waits for; None if it waits only for its turn."""
        self.awake = True
        """Whether it checks the condition at its next turn."""
        self.turn = _Signal()

    @property
    def can_go_on(self) -> bool:
        """Whether it can take the next step."""
        return self.awake and not self.finished


class Interleaving:
    """A scheduler for the hypervisor. `run` lets actors take their steps in one order, which the case
    chooses.

    `state` returns what the rest of the course depends on besides the actors' places: for one actor, or (for
    None) for what all of them share. Its `repr` tells it from all others, in every process. Actors at one
    place in equal states are interchangeable. If `merges`, a state that was explored before is not explored
    again; otherwise every order is followed to its end. `after_each` is called after each step.

    `narrow` gets the actors that can continue, in groups of interchangeable ones, and returns the groups of
    which one takes the next step. Without it, that is each group.

    With `departures` only some orders are explored. An actor continues until it has to wait, then the next
    actor in turn does. Passing over an actor is a departure; there are at most so many in an order.
    """

    def __init__(
        self,
        case: Case,
        state: Callable[[Actor | None], Hashable],
        after_each: Callable[[], None],
        departures: int | None = None,
        merges: bool = True,
        narrow: Callable[[list[list[Actor]]], list[list[Actor]]] = list,
    ) -> None:
        self._narrow = narrow
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
        """Whether the running actor has done something in this step that others can see."""
        self.step = 0
        """The number of steps begun."""
        self.over = False
        """Whether the course has ended. Whatever the actors still do is no part of it."""
        self._failure: BaseException | None = None
        self._end = _Signal()

    # What production code sees

    def acquire(self) -> bool:
        """Take the lock. When an actor begins a step, no other actor holds it."""
        if not self._depth and self._seen:
            self.pause()
        self._depth += 1
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._depth -= 1
        self._seen = True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    @property
    def monitor(self) -> Interleaving:
        """The lock: this very object."""
        return self

    def seat(self) -> Seat:
        """Return a seat, which has no effect here."""
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
        """Return False: other threads may run."""
        return False

    def quantum(self) -> int:
        """Return the instructions of a turn. No turn ends by them here."""
        return QUANTUM

    def pass_time(self, ticks: int) -> None:
        """Do nothing: time passes by itself."""

    def horizon(self) -> SourceTime | None:
        """Return None."""
        return None

    def give_way(self) -> None:
        """End a step and release the monitor until the next one."""
        self.pause()

    def wait(self, ready: Callable[[], bool], until: Until = never) -> None:
        """Sleep until `ready()`, which is called at once and after each `changed`."""
        actor = self._running
        while not ready():
            if actor is not None:
                actor.waits_for, actor.awake = ready, False
            self.pause()
            if actor is not None:
                actor.waits_for = None

    def changed(self) -> None:
        """Wake every actor that waits, so that it checks its condition when the monitor is free."""
        self._seen = True
        for actor in self._actors:
            actor.awake = True

    def pause(self) -> None:
        """End the calling actor's step. Return when its next step begins."""
        actor = self._running
        if self.over or actor is None:
            raise _Abandoned
        depth, self._depth = self._depth, 0
        actor.place = _place()
        if self._pass_on() is not actor:
            actor.turn.wait()
        if self.over:
            raise _Abandoned
        self._running, self._depth, self._seen = actor, depth, False

    # The order of steps

    def run(self, actors: list[Actor]) -> None:
        """Let all actors take their steps in the order that the case chooses, until all have finished."""
        self._actors = actors
        for actor in actors:
            _threads.hand_over(partial(self._act, actor))
        self._pass_on()
        self._end.wait()
        self.over = True
        for actor in actors:
            # Actors that have not finished are abandoned where they are.
            actor.turn.give()
        if self._failure is not None:
            raise self._failure

    def _pass_on(self) -> Actor | None:
        """Return the actor that takes the next step, chosen by the case, or None if the course is over.

        Runs in the thread that has ended its step.
        """
        try:
            if self.step:
                self._after_each()
            for actor in self._actors:
                # An actor whose condition does not hold sleeps on. Checking it is no step.
                if actor.awake and actor.waits_for is not None and not actor.waits_for():
                    actor.awake = False
            if not all(actor.finished for actor in self._actors):
                return self._next()
        except BaseException as failure:
            self._failure = failure
        self.over = True
        self._end.give()
        return None

    def _next(self) -> Actor:
        if self._merges:
            self._case.merge(self._whole)
        self._case.require("no thread waits for ever", any(actor.can_go_on for actor in self._actors))
        self.step += 1
        number = self._case.choose(f"step {self.step}: who continues", self._able)
        if self._departures is not None:
            passed, number = divmod(number, len(self._actors))
            self._departures -= passed
            self._last = number
        actor = self._actors[number]
        self._case.tell(lambda: f"{actor.name} continues")
        if actor is not self._running:
            self._running, self._depth, self._seen = actor, 0, False
            actor.turn.give()
        return actor

    def _whole(self) -> bytes:
        """Return a digest of the state, which is the same in every process."""
        each = [
            repr((actor.place, actor.finished, actor.awake, self._state(actor))) for actor in self._actors
        ]
        if self._departures is None:
            each.sort()
        else:
            each = [str(self._departures), *each[self._last :], *each[: self._last]]
        return blake2b("\0".join((*each, repr(self._state(None)))).encode(), digest_size=16).digest()

    def _able(self) -> list[int]:
        """The numbers of the actors that can continue, one number for interchangeable actors. If departures
        are counted, each number also tells how many actors were passed over.
        """
        count = len(self._actors)
        groups: dict[Hashable, list[Actor]] = {}
        for number in range(self._last, self._last + count):
            actor = self._actors[number % count]
            if actor.can_go_on:
                groups.setdefault((actor.place, self._state(actor)), []).append(actor)
        able = [self._actors.index(group[0]) for group in self._narrow(list(groups.values()))]
        if self._departures is None:
            return able
        return [passed * count + number for passed, number in enumerate(able)][: self._departures + 1]

    def _act(self, actor: Actor) -> None:
        actor.turn.wait()
        if self.over:
            return
        try:
            actor.work()
        except _Abandoned:
            return
        except BaseException as failure:
            if not self.over:
                self._failure, self.over = failure, True
                self._end.give()
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
        found.append((frame.f_code.co_qualname, _position(frame.f_code, frame.f_lasti)))
        frame = frame.f_back
    return tuple(found)


@cache
def _position(code: CodeType, instruction: int) -> object:
    return next(islice(code.co_positions(), instruction // 2, None))


class _Threads:
    """Threads that are kept for reuse: starting a thread takes longer than the work that it is given."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def hand_over(self, work: Callable[[], None]) -> None:
        """Let a thread do this work."""
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
