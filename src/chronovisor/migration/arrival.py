"""Waiting for guests to come over a socket: the destination's end, which answers for moves afterwards."""

from __future__ import annotations

import contextlib
import hmac
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from chronovisor.machine.console import Console
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.machine.peers import in_words, names_in, peer_of, why_not
from chronovisor.migration.address import Address, Place, UnixAddress
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.credentials import Credentials, checked
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import LinkLostError, StreamError
from chronovisor.migration.listening import listen
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Acknowledged,
    Commit,
    Message,
    Offer,
    Query,
    Ready,
    Received,
    Refused,
    Running,
)
from chronovisor.migration.outcomes import Outcomes
from chronovisor.migration.phases import Probe, also_told, no_probe
from chronovisor.migration.stream import Header, Reader, Writer
from chronovisor.migration.tcp import SocketPipe, TimeLimits, hang_up
from chronovisor.migration.tracing import UNTRACED, MoveTrace

_HANGS_UP_WITHIN: Final = 1.0
"""Seconds for a peer to close its connection."""
_KNOWS_WITHIN: Final = 30.0
"""Seconds for the source of the only guest to close its connection."""
_PART_OF_SILENCE: Final = 0.5
"""Of the time after which a source gives up that hears nothing: the longest wait for the last move's end."""
MAXIMUM_CONNECTIONS: Final = 16
"""How many peers are heard at a time; more are hung up on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a destination takes, and how."""

    host_for: Callable[[Header], Host]
    """Makes the host for the guest of a stream with this header."""
    console: Console
    outcomes: Outcomes
    memory_limit: int
    """Bytes; a larger guest is refused."""
    limits: TimeLimits = TimeLimits()  # noqa: RUF009 - frozen, so one serves all
    tell: Callable[[str], None] = lambda line: None
    """Told, in a line each, of guests that did not come."""
    be_ready: Callable[[], None] = lambda: None
    """Returns when a guest can be run without delay: called before one is accepted, while it still runs."""
    credentials: Credentials | None = None
    """What an address under TLS needs."""
    token: bytes = b""
    """What a source has to show; empty if any source may send."""
    allowed: frozenset[str] = frozenset()
    """The names in certificates under which sources may send, in lower case; empty if all may that the
    authority signed.
    """
    probe: Probe = no_probe
    """Told of each phase of a move before it begins."""
    only_one: bool = False
    """Whether to listen no longer when a guest has come whose source has read that it came."""
    trace: MoveTrace = UNTRACED
    """Told of each move, from its offer on; its owner ends one that succeeds."""
    record: int = 0
    """Bytes that are kept of the past of each guest, which is recorded here, too; 0 to record none."""
    engine: str = "auto"
    """What executes the past of guests that come with one."""


class Arrivals:
    """Listens at an address for guests, one at a time, and answers what became of moves until it is closed.

    A peer whose stream is no stream, or whose guest cannot be taken, is told so, and so is one whose move
    fails; the next peer may do better. Once a guest has come, further ones are refused until `take_another`.
    MachineError if it cannot listen there.
    """

    def __init__(self, address: Place, terms: Terms) -> None:
        self._terms = terms
        self._context = checked(address, terms.credentials).server() if address.tls else None
        self._listeners = listen(address)
        self.address: Place = address
        if isinstance(address, Address):
            self.address = replace(address, port=self._listeners[0].getsockname()[1])
        """The address at which it listens; its port is the one that the system chose if port 0 was given."""
        self._connections = threading.BoundedSemaphore(MAXIMUM_CONNECTIONS)
        self._taking = threading.Lock()
        """Held from an offer until its move failed; if the guest came, until `take_another`."""
        self._occupant: SocketPipe | None = None
        """What the move goes over for which `_taking` was taken last."""
        self._came = threading.Event()
        self._arrived: Arrived | None = None
        self._deciding = threading.Lock()
        """Held while COMMIT is dealt with, and while it is decided that there is to be none any more."""
        self._closed = False
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), name="arrivals", daemon=True).start()

    def wait(self, timeout: float | None = None) -> Arrived | None:
        """Wait for a guest; None if none came in `timeout` seconds, or before it was closed."""
        return self._arrived if self._came.wait(timeout) else None

    def take_another(self) -> None:
        """Accept a guest again, now that the one that came is gone."""
        if self._came.is_set():
            self._came.clear()
            self._arrived = None
            self._taking.release()

    def close(self) -> Arrived | None:
        """Listen no longer; return the guest that is here by now, None if none will be.

        A move that is under way fails, and its guest goes on at the source.
        """
        with self._deciding:
            if self._closed:
                # Another process may listen at the path by now.
                return self._arrived
            self._closed = True
        for listener in self._listeners:
            # Closing alone does not wake a thread that waits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if isinstance(self.address, UnixAddress):
            Path(self.address.path).unlink(missing_ok=True)
        self._came.set()
        return self._arrived

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not self._connections.acquire(blocking=False):
                # The peers that keep the other connections open run into the time limits.
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="arrival", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        try:
            self._hear(self._protected(connection), peer)
        except (OSError, ValueError) as error:
            connection.close()
            self._terms.tell(f"a guest was not taken from {peer}: {in_words(error)}")
        finally:
            self._connections.release()

    def _protected(self, connection: socket.socket) -> socket.socket:
        if self._context is None:
            return connection
        connection.settimeout(self._terms.limits.silence)
        protected = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        try:
            protected.do_handshake()
        except BaseException:
            # The peer takes its side of the handshake for done, and may have sent something: what it was told
            # would be lost if that was unread when the connection is closed.
            hang_up(protected, _HANGS_UP_WITHIN)
            raise
        return protected

    def _hear(self, connection: socket.socket, peer: str) -> None:
        with connection:
            pipe, came = SocketPipe(connection, self._terms.limits.silence), False
            reader, writer = Reader(pipe), Writer(pipe)
            try:
                try:
                    header = reader.header()
                finally:
                    # A peer that sent no header is told so in a stream, too: it may be of another version.
                    writer.header(Header(), reader.version)
                self._check_allowed(connection)
                message = reader.message()
                if isinstance(message, Query):
                    writer.message(self._terms.outcomes.ask(message.move))
                elif isinstance(message, Offer):
                    header.check_offer(message)
                    pipe.deadline = time.monotonic() + self._terms.limits.whole_move
                    came = self._consider(header, message, pipe, reader, writer, peer)
                else:
                    raise StreamError(f"a stream does not begin with {type(message).__name__}")
            except LinkLostError as error:
                self._refuse(writer, str(error), peer)
            knows = pipe.hang_up(_KNOWS_WITHIN if came and self._terms.only_one else _HANGS_UP_WITHIN)
        if came and knows and self._terms.only_one:
            self.close()

    def _check_allowed(self, connection: socket.socket) -> None:
        if self._context is None:
            return
        reason = why_not(names_in(connection), self._terms.allowed)
        if reason is not None:
            raise StreamError(reason)

    def _consider(
        self, header: Header, offer: Offer, pipe: SocketPipe, reader: Reader, writer: Writer, peer: str
    ) -> bool:
        """Take the guest that is offered, if it may come; return whether it came."""
        # Before all else: a peer without the token learns nothing and occupies nothing here.
        if self._terms.token and not hmac.compare_digest(offer.token, self._terms.token):
            shown = "another token than this destination's" if offer.token else "no token"
            self._refuse(writer, f"the source shows {shown} (--token)", peer)
            return False
        if not self._begin_taking():
            self._refuse(writer, "another guest has come here, or is coming", "")
            return False
        self._occupant = pipe
        host, trace = None, self._terms.trace
        try:
            if header.memory_size > self._terms.memory_limit:
                raise MachineError(
                    f"the guest has {header.memory_size} bytes of memory, and this destination takes "
                    f"{self._terms.memory_limit} at most"
                )
            host = self._terms.host_for(header)
            self._terms.be_ready()
            # What was typed before was for nobody: QEMU forgets it, too.
            self._terms.console.begin_anew()
            trace.begins(f"from {peer}")
            probe = also_told(self._terms.probe, trace.phase)
            destination = Destination(
                host,
                self._terms.console,
                self._terms.outcomes,
                probe,
                shares_clock=False,
                record=self._terms.record,
            )
            answer = destination.handle(offer)
            if isinstance(answer, Refused):
                raise MachineError(answer.reason)
        except Exception as error:
            # Whatever it was, the next guest may do better.
            if host is not None:
                host.close()
            trace.ends("refused", {})
            self._taking.release()
            self._refuse(writer, str(error), peer)
            return False
        reason = self._take(destination, host, reader, writer, answer)
        if reason is not None:
            trace.ends("failed", {})
            host.close()
            self._terms.tell(f"the move was given up, and the guest does not run here: {reason}")
            self._taking.release()
        return reason is None

    def _begin_taking(self) -> bool:
        """Take `_taking` if it is free or will soon be: the move's source is gone, or the guest has ended.

        The one that offers a guest now may be the one that has just given a move up.
        """
        if self._taking.acquire(blocking=False):
            return True
        came, occupant = self._arrived, self._occupant
        if came is not None:
            frees_soon = not self._terms.only_one and came.destination.guest.end is not None
        else:
            frees_soon = occupant is not None and occupant.is_ended
        return frees_soon and self._taking.acquire(timeout=self._terms.limits.silence * _PART_OF_SILENCE)

    def _take(
        self, destination: Destination, host: Host, reader: Reader, writer: Writer, answer: Message
    ) -> str | None:
        """Take the guest whose offer was answered so; return why it did not come, None if it came."""
        try:
            while True:
                if isinstance(answer, Acknowledged) and destination.committed:
                    _try_to_send(writer, answer)
                    self._came.set()
                    after = destination.wait_for_start(self._terms.limits.silence)
                    if after is not None:
                        _try_to_send(writer, Running(after))
                    return None
                writer.message(answer)
                if not isinstance(answer, Accepted | Received | Ready):
                    reason = (
                        answer.reason if isinstance(answer, Aborted | Refused) else "a message out of turn"
                    )
                    destination.give_up(reason)
                    return reason
                message = reader.message(destination.memory)
                with self._deciding if isinstance(message, Commit) else nullcontext():
                    if self._closed:
                        raise StreamError("this process waits for no guest any more")
                    answer = destination.handle(message)
                    if isinstance(answer, Acknowledged) and destination.committed:
                        # The outcome is recorded: it holds whether or not the source receives it.
                        self._arrived = Arrived(
                            destination, host, answer.record, self._terms.engine, self._terms.tell
                        )
        except Exception as error:
            # Mostly a failed connection. After an internal error the guest stays at the source, too.
            reason = str(error)
            destination.give_up(reason)
            _try_to_send(writer, Aborted(reason))
            return reason

    def _refuse(self, writer: Writer, reason: str, peer: str) -> None:
        """Tell the peer why its guest is not taken, and the owner, unless `peer` is empty."""
        if peer:
            self._terms.tell(f"a guest was not taken from {peer}: {reason}")
        _try_to_send(writer, Refused(reason))


def _try_to_send(writer: Writer, message: Message) -> None:
    with contextlib.suppress(LinkLostError):
        writer.message(message)
