"""A move's way within one process, made of the stream's own bytes, that breaks where it is told to.

What `Arrivals` does around a destination is done here too, without sockets or threads: a stream that cannot
be read gives the move up, and a question is answered on a connection of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from move_streams import BytesPipe

from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import LinkLostError, StreamError
from chronovisor.migration.messages import Aborted, Accepted, Acknowledged, Message, Query, Ready, Received
from chronovisor.migration.outcomes import Outcomes
from chronovisor.migration.stream import Header, Reader, Writer

KINDS: Final = (
    "cut",  # the way ends there, and both sides are told
    "lost",  # nothing comes any more, and nobody is told
    "corrupt",  # a bit is wrong
    "late",  # the clock goes on before the rest comes
    "reordered",  # a question overtakes what is late
    "twice",  # a message comes again
    "other",  # another message comes in its place
    "killed",  # the receiver of the message is no more
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes the message number `at` of one direction: 0 is the first; the byte `byte` of it, modulo its
    length, where bytes matter.
    """

    from_source: bool
    at: int
    kind: str
    byte: int = 0
    late_by: int = 0
    """Ticks."""


class FaultyChannel:
    """The source's end (`migration.link.Channel`). `pass_time` lets ticks pass on the hosts' clock.

    Once `mended`, the way works, and the destination's process is another one if it was killed: all that it
    knows of the move is in `outcomes`.
    """

    def __init__(
        self,
        destination: Destination,
        outcomes: Outcomes,
        header: Header,
        fault: Fault,
        pass_time: Callable[[int], None],
    ) -> None:
        self._destination: Destination | None = destination
        self._outcomes = outcomes
        self._fault = fault
        self._pass_time = pass_time
        self._broken = False
        self._told = False
        self._silent = False
        self._sent = self._answered = 0
        self._pipe_there, self._pipe_back = BytesPipe(), BytesPipe()
        self._writer, self._reader = Writer(self._pipe_there), Reader(self._pipe_there)
        self._answers, self._heard = Writer(self._pipe_back), Reader(self._pipe_back)
        self._writer.header(header)
        self._reader.header()
        self._held: bytes | None = None
        self.struck = False
        self.names: list[str] = []
        """Messages as they were sent, either way."""

    def mend(self) -> None:
        """Have the way work again. What is late arrives now, or behind the question."""
        self._silent = False
        if self._held is not None and self._fault.byte % 2:
            held, self._held = self._held, None
            self._arrive(held)

    # The source's end

    def send(self, message: Message) -> None:
        if isinstance(message, Query):
            self._ask(message)
            return
        if self._broken:
            if self._told:
                raise LinkLostError("the connection was lost")
            return
        self._pipe_there.data.clear()
        self._pipe_there.at = 0
        self._writer.message(message)
        self.names.append(type(message).__name__)
        data = bytes(self._pipe_there.data)
        number, self._sent = self._sent, self._sent + 1
        if not (self._fault.from_source and self._fault.at == number):
            self._arrive(data)
            return
        self._strike(data, self._arrive)

    def receive(self) -> Message:
        if self._silent:
            raise LinkLostError("nothing more came")
        return self._heard.message()

    def receive_if_soon(self) -> Message | None:
        return None

    # What happens on the way

    def _strike(self, data: bytes, arrive: Callable[[bytes], None]) -> None:
        self.struck = True
        at = self._fault.byte % len(data)
        match self._fault.kind:
            case "cut":
                self._broken = self._told = True
                self._give_up("the connection was lost")
            case "lost":
                self._broken = self._silent = True
            case "corrupt":
                damaged = bytearray(data)
                damaged[at] ^= 1 << (self._fault.byte % 8)
                arrive(bytes(damaged))
            case "late":
                self._pass_time(self._fault.late_by)
                arrive(data)
            case "reordered":
                self._broken = self._silent = True
                self._held = data if arrive == self._arrive else None
            case "twice":
                arrive(data)
                arrive(data)
            case "other":
                pipe = BytesPipe()
                Writer(pipe).message(Ready() if arrive == self._hear else Accepted())
                arrive(bytes(pipe.data))
            case "killed":
                self._broken = self._silent = True
                if arrive == self._arrive:
                    self._kill()

    def _kill(self) -> None:
        """The destination's process is gone, with whatever it had of the guest, unless it runs it already."""
        if self._destination is not None and not self._destination.committed:
            self._destination.give_up = lambda reason: None  # type: ignore[method-assign]
            self._destination._discard()
            self._destination = None

    def _arrive(self, data: bytes) -> None:
        """Bytes come to the destination."""
        if self._destination is None:
            return
        self._pipe_there.data[:] = data
        self._pipe_there.at = 0
        try:
            answer = self._destination.handle(self._reader.message(self._destination.memory))
        except StreamError as error:
            self._give_up(str(error))
            answer = Aborted(str(error))
        if not isinstance(answer, Accepted | Received | Ready | Acknowledged):
            self._give_up("a message out of turn")
        self._answer(answer)

    def _answer(self, answer: Message) -> None:
        if self._broken:
            return
        pipe = self._pipe_back
        before = len(pipe.data)
        self._answers.message(answer)
        data = bytes(pipe.data[before:])
        del pipe.data[before:]
        self.names.append(type(answer).__name__)
        number, self._answered = self._answered, self._answered + 1
        if self._fault.from_source or self._fault.at != number:
            self._hear(data)
            return
        self._strike(data, self._hear)

    def _hear(self, data: bytes) -> None:
        """Bytes come to the source."""
        self._pipe_back.data += data

    def _give_up(self, reason: str) -> None:
        if self._destination is not None:
            self._destination.give_up(reason)

    def _ask(self, query: Query) -> None:
        """A question comes on a connection of its own, to whatever process answers for the destination."""
        if self._silent and self._fault.kind != "reordered":
            raise LinkLostError("nobody answers")
        self._silent = False
        self._pipe_back.data.clear()
        self._pipe_back.at = 0
        self._answers, self._heard = Writer(self._pipe_back), Reader(self._pipe_back)
        self._answers.message(self._outcomes.ask(query.move))
        if self._held is not None:
            held, self._held = self._held, None
            # What it overtook comes at last.
            with contextlib.suppress(LinkLostError):
                self._arrive(held)
