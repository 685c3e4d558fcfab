"""A move over a socket: the source's channel, and the pipe that both ends read and write through."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chronovisor.machine.peers import in_words
from chronovisor.migration.address import Address, Place
from chronovisor.migration.credentials import Credentials, checked
from chronovisor.migration.errors import LinkLostError, StreamError
from chronovisor.migration.messages import Message, Query
from chronovisor.migration.stream import Header, Reader, Writer

if TYPE_CHECKING:
    import ssl

_TELLS_WITHIN: Final = 1.0
"""Seconds in which the reason comes why the other side hung up, if one comes."""
_GATHERED: Final = 1 << 14
"""Bytes: what is no more goes as one record of TLS."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long one side waits for the other, in seconds, before it takes it for lost."""

    connect: float = 5.0
    silence: float = 10.0
    """For the next message: an answer, or what the source sends next."""
    start: float = 2.0
    """For the destination's word that the guest was let go, on which nothing depends."""
    whole_move: float = 3600.0
    """From an offer that was accepted until COMMIT."""

    @classmethod
    def of(cls, seconds: float) -> TimeLimits:
        """Return limits of `seconds` for whatever the other side does next."""
        return cls(seconds, seconds)


class SocketPipe:
    """A connected socket as a stream's pipe. What does not come within `limit` seconds is lost.

    The limit applies to what is read at a time: a head, a message, a piece of memory.
    """

    def __init__(self, connection: socket.socket, limit: float) -> None:
        self._socket = connection
        self._under_tls = hasattr(connection, "getpeercert")
        self.limit = limit
        self.deadline = math.inf
        """Of `time.monotonic`: a moment after which nothing is waited for any more."""
        if connection.family != socket.AF_UNIX:
            # Small messages measure the move: none of them may be held back to be sent with another.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read_into(self, view: memoryview) -> None:
        """Fill all of `view`."""
        deadline = time.monotonic() + self.limit
        got = 0
        while got < len(view):
            left = min(deadline, self.deadline) - time.monotonic()
            if left <= 0:
                raise StreamError(self._lateness())
            self._socket.settimeout(left)
            try:
                size = self._socket.recv_into(view[got:])
            except TimeoutError:
                raise StreamError(self._lateness()) from None
            except OSError as error:
                raise StreamError(f"the connection was lost ({in_words(error)})") from None
            if not size:
                raise StreamError("the other side closed the connection")
            got += size

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all the pieces."""
        left = [memoryview(piece) for piece in pieces if len(piece)]
        try:
            self._socket.settimeout(self.limit)
            if self._under_tls:
                # A TLS socket does not gather pieces into one record.
                for piece in [b"".join(left)] if sum(map(len, left)) <= _GATHERED else left:
                    self._socket.sendall(piece)
                return
            while left:
                sent = self._socket.sendmsg(left)
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if sent:
                    left[0] = left[0][sent:]
        except TimeoutError:
            raise LinkLostError(f"the other side took nothing for {self.limit:g} s") from None
        except OSError as error:
            raise LinkLostError(f"the connection was lost ({in_words(self._told_why(error))})") from None

    @property
    def is_ended(self) -> bool:
        """Whether one of the sides has ended the connection, even if not all that came was read. From any
        thread.
        """
        here = select.poll()
        try:
            here.register(self._socket, select.POLLRDHUP)
        except ValueError:
            # It is closed here.
            return True
        return bool(here.poll(0))

    def interrupt(self) -> None:
        """Make reads and writes in progress, and all later ones, fail as if the connection were lost. From
        any thread.
        """
        with contextlib.suppress(OSError):
            # The plain socket's shutdown, under TLS too: TLS's own would take TLS away from the other thread.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def hang_up(self, patience: float) -> bool:
        """End the connection so that what was written last still arrives.

        Closing a socket that has unread data makes the other side lose what was sent to it. So this goes on
        reading until the other side closes, too, for `patience` seconds at most. True if it has closed and
        has read all that was sent to it.
        """
        return hang_up(self._socket, patience)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _told_why(self, error: OSError) -> OSError:
        """Return why the other side hung up, if it has said so; else the error of a write.

        Of a certificate that it does not accept it tells when this side's handshake is over (TLS 1.3).
        """
        if self._under_tls:
            self._socket.settimeout(_TELLS_WITHIN)
            try:
                self._socket.recv(1)
            except OSError as told:
                return told if getattr(told, "reason", None) else error
        return error

    def _lateness(self) -> str:
        if time.monotonic() >= self.deadline:
            return "the move takes longer than it may"
        return f"nothing more came for {self.limit:g} s"


def hang_up(connection: socket.socket, patience: float) -> bool:
    """Do what `SocketPipe.hang_up` does, with any connection."""
    read_all = False
    deadline = time.monotonic() + patience
    with contextlib.suppress(OSError):
        # The plain socket's: TLS may not have begun, or have failed.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not socket.socket.recv(connection, 1 << 16):
                # It would be a reset if the other side had closed with something unread.
                read_all = True
                break
    connection.close()
    return read_all


class TcpChannel:
    """The source's end: `migration.link.Channel` over a connection to `address`.

    It connects when the first message is sent, and anew for a `Query`, since that is asked when the
    connection on which the move was made has failed.
    """

    def __init__(
        self,
        address: Place,
        header: Header,
        limits: TimeLimits = TimeLimits(),
        credentials: Credentials | None = None,
    ) -> None:
        self.address = address
        self._credentials = credentials
        self._header = header
        self._limits = limits
        self._pipe: SocketPipe | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None

    def send(self, message: Message) -> None:
        """Send a message; LinkLostError if the connection fails."""
        if self._writer is None or isinstance(message, Query):
            self._connect()
        assert self._writer is not None
        self._writer.message(message)

    def receive(self) -> Message:
        """Wait for the next message; LinkLostError if no message comes, or a damaged one."""
        if self._reader is None:
            raise LinkLostError("there is no connection")
        return self._reader.message()

    def receive_if_soon(self) -> Message | None:
        """Wait for the next message as long as the limits say for what nothing depends on."""
        if self._pipe is None or not self._limits.start:
            return None
        self._pipe.limit = self._limits.start
        try:
            return self.receive()
        except LinkLostError:
            return None
        finally:
            self._pipe.limit = self._limits.silence

    def interrupt(self) -> None:
        """Break the connection, so that a thread that waits for it goes on. From any thread."""
        pipe = self._pipe
        if pipe is not None:
            pipe.interrupt()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = self._writer = self._reader = None

    def _connect(self) -> None:
        self.close()
        connection = connect(self.address, self._limits.connect, self._credentials)
        self._pipe = SocketPipe(connection, self._limits.silence)
        self._writer, reader = Writer(self._pipe), Reader(self._pipe)
        self._writer.header(self._header)
        reader.header()
        self._reader = reader


def connect(address: Place, limit: float, credentials: Credentials | None = None) -> socket.socket:
    """Return a connection to the address; LinkLostError if nobody accepts it within `limit` seconds, or the
    two sides do not accept each other's certificates. MachineError if `credentials` are missing.
    """
    context = client_context(address, credentials)
    failure: OSError | None = None
    for family, sockaddr in address.resolve():
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(limit)
            connection.connect(sockaddr)
            if context is not None and credentials is not None and isinstance(address, Address):
                return context.wrap_socket(connection, server_hostname=credentials.peer or address.host)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    reason = f"nothing answered for {limit:g} s" if isinstance(failure, TimeoutError) else _said(failure)
    raise LinkLostError(f"{address}: {reason}")


def client_context(address: Place, credentials: Credentials | None) -> ssl.SSLContext | None:
    """Return the TLS context to connect to the address with, None without TLS; MachineError as `connect`."""
    return checked(address, credentials).client() if address.tls else None


def _said(error: OSError | None) -> str:
    if error is None:
        return "it has no address"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return "nobody listens there; start `chronovisor receive` first"
    return in_words(error)
