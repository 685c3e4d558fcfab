"""Where clients of a monitor, a debugger or a console come in."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Sequence
from typing import Protocol


class Door(Protocol):
    """Lets clients in until it is closed. From any thread."""

    @property
    def address(self) -> str:
        """What clients connect to: HOST:PORT, or a path."""

    @property
    def is_under_tls(self) -> bool:
        """Whether clients have to speak TLS."""

    def accept(self) -> socket.socket:
        """Wait for the next client and return its connection; OSError once the door is closed."""

    def close(self) -> None:
        """Let nobody in any more. Clients that are in stay."""

    def finish(self, timeout: float) -> None:
        """Wait until clients that are gone were sent all that was written to them; `timeout` seconds at most.

        The door is closed by then, and so are the connections of its clients.
        """


class OpenDoor:
    """A door that lets in whoever can connect to one of the `listeners`.

    `closed` is called when it is closed.
    """

    is_under_tls = False

    def __init__(self, listeners: Sequence[socket.socket], closed: Callable[[], None] = lambda: None) -> None:
        self._listeners = listeners
        self._on_close = closed
        self._closed = False
        self.address = _address(listeners[0])
        # It stays open as long as somebody may wait; the number of a closed listener may be another's.
        self._waking, self._wake = socket.socketpair()
        self._here = select.poll()
        self._here.register(self._waking, select.POLLIN)
        for listener in listeners:
            self._here.register(listener, select.POLLIN)
            # A client that has gone again is not waited for.
            listener.setblocking(False)

    def accept(self) -> socket.socket:
        """Wait for the next client and return its connection; OSError once the door is closed."""
        while True:
            ready = {fd for fd, _ in self._here.poll()}
            if self._closed:
                raise OSError("the door is closed")
            for listener in self._listeners:
                with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
                    if listener.fileno() in ready:
                        return _watched_over(listener.accept()[0])

    def close(self) -> None:
        """Let nobody in any more. Clients that are in stay."""
        if self._closed:
            # The address may be another's by now.
            return
        self._closed = True
        self._on_close()
        self._wake.close()
        for listener in self._listeners:
            listener.close()

    def finish(self, timeout: float) -> None:
        """Return at once: the kernel sends what was written."""


def _watched_over(connection: socket.socket) -> socket.socket:
    """Have a client whose machine is gone found out, when the machine's settings say (tcp_keepalive_time)."""
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
