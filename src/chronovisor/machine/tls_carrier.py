"""Carrying bytes between a connection under TLS and a plain one, on one thread."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time
from typing import Final

_PIECE: Final = 1 << 14
"""Bytes: as many as a record of TLS has at most."""
_PATIENCE: Final = 10.0
"""Seconds in which the client takes what it was sent last."""
_HANGS_UP_WITHIN: Final = 1.0
"""Seconds for the client to close its connection, so that what it was sent last is not lost."""


class Carrier:
    """Carries what either side says to the other, and the client's end, until the `plain` side says no more.

    It keeps one piece in each direction, and reads nothing from a side whose last piece is not delivered.
    """

    def __init__(self, protected: ssl.SSLSocket, plain: socket.socket) -> None:
        self._protected = protected
        self._plain = plain
        self._inward = self._outward = b""
        self._hears = self._speaks = True
        """Whether more may come from the client, and from the plain side."""
        self._waits: dict[socket.socket, int] = {}

    def run(self) -> None:
        """Carry until there is no more to carry, and close both connections."""
        self._protected.setblocking(False)
        self._plain.setblocking(False)
        with self._protected, self._plain:
            # A connection that fails has nobody left to tell.
            with contextlib.suppress(OSError):
                self._carry()
            # Whoever serves the client finds it gone, and need not wait for the rest.
            self._plain.close()
            with contextlib.suppress(OSError):
                self._hang_up()

    def _carry(self) -> None:
        deadline = math.inf
        while self._speaks or self._outward:
            self._waits = {}
            moved = self._carry_in()
            if self._carry_out() or moved:
                continue
            here = select.poll()
            here.register(self._protected, self._waits.get(self._protected, 0))
            if deadline == math.inf:
                here.register(self._plain, self._waits.get(self._plain, 0))
            left = None if deadline == math.inf else 1000 * max(0.0, deadline - time.monotonic())
            found = dict(here.poll(left))
            if not found and left is not None:
                raise TimeoutError
            if found.get(self._plain.fileno(), 0) & select.POLLHUP:
                # It has closed. What it said last is still to be read, and then to be delivered.
                deadline = time.monotonic() + _PATIENCE
                self._hears, self._inward = False, b""
            if not self._waits.get(self._protected) and found.get(self._protected.fileno(), 0):
                raise ConnectionResetError

    def _carry_in(self) -> bool:
        """Carry from the client as far as it goes without waiting; return whether anything moved."""
        moved = False
        if self._hears and not self._inward:
            try:
                self._inward = self._protected.recv(_PIECE)
            except ssl.SSLError as error:
                self._wait(error)
            else:
                moved = True
                if not self._inward:
                    self._hears = False
                    with contextlib.suppress(OSError):
                        self._plain.shutdown(socket.SHUT_WR)
        if self._inward:
            try:
                self._inward = self._inward[self._plain.send(self._inward) :]
                moved = True
            except BlockingIOError:
                self._waits[self._plain] = select.POLLOUT
            except OSError:
                # It reads no more.
                self._hears, self._inward = False, b""
        return moved

    def _carry_out(self) -> bool:
        """Carry to the client, as `_carry_in`."""
        moved = False
        if self._speaks and not self._outward:
            try:
                self._outward = self._plain.recv(_PIECE)
                self._speaks, moved = bool(self._outward), True
            except BlockingIOError:
                self._waits[self._plain] = self._waits.get(self._plain, 0) | select.POLLIN
        if self._outward:
            try:
                self._outward = self._outward[self._protected.send(self._outward) :]
                moved = True
            except ssl.SSLError as error:
                self._wait(error)
        return moved

    def _wait(self, error: ssl.SSLError) -> None:
        """Note what TLS waits for; raise the error if it waits for nothing."""
        if isinstance(error, ssl.SSLWantReadError):
            events = select.POLLIN
        elif isinstance(error, ssl.SSLWantWriteError):
            events = select.POLLOUT
        else:
            raise error
        self._waits[self._protected] = self._waits.get(self._protected, 0) | events

    def _hang_up(self) -> None:
        """End the connection so that what the client was sent last arrives, as `SocketPipe.hang_up`."""
        deadline = time.monotonic() + _HANGS_UP_WITHIN
        with contextlib.suppress(ssl.SSLError):
            # The client's own end of TLS is not waited for.
            self._protected.unwrap()
        # From here on the plain socket's calls: whatever the client still says is dropped.
        socket.socket.shutdown(self._protected, socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            here = select.poll()
            here.register(self._protected, select.POLLIN)
            if here.poll(1000 * left) and not socket.socket.recv(self._protected, _PIECE):
                break
