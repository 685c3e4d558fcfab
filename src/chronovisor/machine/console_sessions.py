"""Attaching to a running guest's console from other processes: one of them types, any number of them watch.

A session is a connection: the guest's output goes out, keys come in, as bytes. A client that is too slow
misses output (`Console.since`); the guest never waits for one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from chronovisor.machine.console import Console
from chronovisor.machine.control import Conversation
from chronovisor.machine.errors import MachineError

_BETWEEN_LOOKS: Final = 0.2
"""Seconds between two looks whether a session is over."""
_PIECE: Final = 1 << 16
"""Bytes of output in one send."""
_MOST_SESSIONS: Final = 16


class ConsoleSessions:
    """The sessions of one console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._changing = threading.Lock()
        self._sessions: set[_Session] = set()
        self._closed = False

    def answer(self, request: dict[str, Any]) -> Conversation:
        """Answer `chronovisor console`: `types` says whether it types, `force` whether it may take over."""
        return Conversation({}, self.attach(request["types"], request["force"]))

    def attach(self, types: bool, force: bool = False) -> Callable[[socket.socket], None]:
        """Begin a session; the result serves a connection until the session is over.

        MachineError if it types and somebody else does, unless `force` ends that session.
        """
        session = _Session(self._console, types)
        with self._changing:
            typing = next((other for other in self._sessions if other.types and not other.is_over), None)
            if types and self._console.occupied:
                raise MachineError(f"{self._console.occupied}; --read-only shows what the guest prints")
            if types and typing is not None:
                if not force:
                    raise MachineError(
                        "somebody is attached to the console already: --force takes it over, --read-only "
                        "shows what the guest prints"
                    )
                self._sessions.discard(typing)
                typing.close()
            if self._closed or len(self._sessions) >= _MOST_SESSIONS:
                raise MachineError(f"no more than {_MOST_SESSIONS} can be attached to a console")
            self._sessions.add(session)

        def hold(connection: socket.socket) -> None:
            try:
                session.serve(connection)
            finally:
                with self._changing:
                    self._sessions.discard(session)

        return hold

    def close(self) -> None:
        """End all sessions, once they have sent what was printed. There are no new ones."""
        with self._changing:
            self._closed = True
            for session in self._sessions:
                session.close()


class _Session:
    """One connection."""

    def __init__(self, console: Console, types: bool) -> None:
        self.types = types
        self._console = console
        self._over = threading.Event()
        self._connection: socket.socket | None = None

    @property
    def is_over(self) -> bool:
        """Whether the session ends, or will once it sees that the other side has closed the connection."""
        if self._over.is_set() or self._connection is None:
            return self._over.is_set()
        here = select.poll()
        here.register(self._connection, 0)
        return bool(here.poll(0))

    def close(self) -> None:
        self._over.set()

    def serve(self, connection: socket.socket) -> None:
        """Pass on both directions until `close`, or until the other side has closed the connection."""
        connection.settimeout(_BETWEEN_LOOKS)
        self._connection = connection
        keys = threading.Thread(target=self._pass_keys, args=(connection,), name="keys", daemon=True)
        keys.start()
        position = self._console.last_line
        with contextlib.suppress(OSError):
            while True:
                over = self._over.is_set()
                output, position = self._console.since(position, 0 if over else _BETWEEN_LOOKS)
                self._send(connection, output, over)
                if over:
                    break
        self._over.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        keys.join()

    def _send(self, connection: socket.socket, output: bytes, last: bool) -> None:
        rest = memoryview(output)
        while rest:
            try:
                rest = rest[connection.send(rest[:_PIECE]) :]
            except TimeoutError:
                # The client does not read. Its session waits for it only while it lasts.
                if last or self._over.is_set():
                    return

    def _pass_keys(self, connection: socket.socket) -> None:
        """Type what comes. A client that sends no more may still watch, until it closes the connection."""
        here = select.poll()
        here.register(connection, select.POLLIN if self.types else 0)
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                if self.types and not (room := self._console.room(_BETWEEN_LOOKS)):
                    continue
                events = dict(here.poll(1000 * _BETWEEN_LOOKS)).get(connection.fileno(), 0)
                if self.types and events & select.POLLIN:
                    keys = connection.recv(min(room, _PIECE))
                    if keys:
                        self._console.type(keys)
                    else:
                        here.modify(connection, 0)
                elif events:
                    break
        self._over.set()
