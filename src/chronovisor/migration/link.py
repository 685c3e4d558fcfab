"""The link between the two ends of a move.

Here both ends are in one process: a delivery is a call, made when the time of its flight has passed on the
hosts' clock. The source depends only on `Channel`, and the destination only on the messages that come, so a
real connection can replace all this.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from typing import Protocol

from chronovisor.migration.errors import LinkLostError
from chronovisor.migration.messages import Message
from chronovisor.timebase.clock import TickSource
from chronovisor.timebase.types import SourceTime, Ticks

LAN: tuple[Ticks, Ticks] = (Ticks(25_600), Ticks(256_000))
"""Flights of 50 to 500 µs."""


class Channel(Protocol):
    """The source's end of the link to the destination."""

    def send(self, message: Message) -> None:
        """Send a message; LinkLostError if it is known not to arrive."""

    def receive(self) -> Message:
        """Wait for the next message; LinkLostError if no message will come."""

    def receive_if_soon(self) -> Message | None:
        """Wait a short time for a message on which nothing depends; None if no message comes."""


class Link:
    """A link whose deliveries take time: `flights` ticks each, over and over.

    Without `flights` each delivery takes a random time between the two of `LAN`, the same ones for the same
    `seed`.
    """

    def __init__(self, flights: Iterable[Ticks] | None = None, seed: int = 0) -> None:
        self._flights: Iterator[Ticks] = _random_flights(seed) if flights is None else cycle(flights)

    def connect(self, source: TickSource, handle: Callable[[Message], Message]) -> Channel:
        """Return the source's end; `handle` is the destination's, called with each message that arrives."""
        return _Connection(self, source, handle)

    def carry(self, message: Message, sent: SourceTime, source: TickSource) -> Message:
        """Have a message sent at tick `sent` of `source` take its time; return it as it arrives."""
        source.sleep_until(SourceTime(sent + next(self._flights).value))
        return message


class _Connection:
    def __init__(self, link: Link, source: TickSource, handle: Callable[[Message], Message]) -> None:
        self._link = link
        self._source = source
        self._handle = handle
        self._answers: deque[tuple[SourceTime, Message]] = deque()

    def send(self, message: Message) -> None:
        answer = self._handle(self._link.carry(message, self._source.ticks(), self._source))
        self._answers.append((self._source.ticks(), answer))

    def receive(self) -> Message:
        if not self._answers:
            raise LinkLostError("the destination answered nothing")
        sent, answer = self._answers.popleft()
        return self._link.carry(answer, sent, self._source)

    def receive_if_soon(self) -> Message | None:
        return None


def _random_flights(seed: int) -> Iterator[Ticks]:
    chance = random.Random(seed)
    least, most = LAN
    while True:
        yield Ticks(chance.randint(least.value, most.value))
