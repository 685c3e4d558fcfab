"""A door for clients under TLS. Each shows a certificate before anybody hears it.

Behind the door a client is a plain connection: a thread of its own carries what it and the guest's process
say to each other. So whoever serves it may read and write on different threads, and look whether there is
something to read, neither of which a connection under TLS can do.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

from chronovisor.machine.door import Door
from chronovisor.machine.peers import in_words, names_in, peer_of, why_not
from chronovisor.machine.tls_carrier import Carrier

MOST_HANDSHAKES: Final = 16
"""At a time, those included that are over and whose client waits to be accepted; more are hung up on."""
_HANDSHAKE_PATIENCE: Final = 10.0
"""Seconds for the whole of a handshake."""


class TlsDoor:
    """The door behind which another one's clients are, once they have shown a certificate that `context`
    trusts. `name` is the host's in the address, for which its own certificate is.

    If there are names in `allowed` (in lower case), one of them has to be in the certificate. `tell` is told
    a line about each client that is not let in.
    """

    is_under_tls = True

    def __init__(
        self,
        door: Door,
        name: str,
        context: ssl.SSLContext,
        allowed: frozenset[str],
        tell: Callable[[str], None],
    ) -> None:
        self._door = door
        self._context = context
        self._allowed = allowed
        self._tell = tell
        self._handshakes = threading.BoundedSemaphore(MOST_HANDSHAKES)
        self._admitted: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        self._changing = threading.Lock()
        self._outside: set[ssl.SSLSocket] = set()
        """Connections whose handshake is not over."""
        self._carriers: set[threading.Thread] = set()
        self._closed = False
        self.address = f"{name}:{door.address.rpartition(':')[2]}"
        threading.Thread(target=self._hear, name="tls", daemon=True).start()

    def accept(self) -> socket.socket:
        """Wait for the next client and return its connection; OSError once the door is closed."""
        connection = self._admitted.get()
        if connection is None or self._closed:
            # For the next one that asks.
            self._admitted.put(None)
            if connection is not None:
                connection.close()
            raise OSError("the door is closed")
        self._handshakes.release()
        return connection

    def close(self) -> None:
        """Let nobody in any more. Clients that are in stay."""
        self._door.close()
        with self._changing:
            self._closed = True
            outside = list(self._outside)
        for connection in outside:
            # The plain socket's: TLS's own would take TLS away from the other thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        with contextlib.suppress(queue.Empty):
            while (waiting := self._admitted.get_nowait()) is not None:
                waiting.close()
        self._admitted.put(None)

    def finish(self, timeout: float) -> None:
        """Wait until clients that are gone were sent all that was written to them; `timeout` seconds at
        most.
        """
        deadline = time.monotonic() + timeout
        with self._changing:
            carriers = list(self._carriers)
        for carrier in carriers:
            carrier.join(max(0.0, deadline - time.monotonic()))

    def _hear(self) -> None:
        while True:
            try:
                connection = self._door.accept()
            except OSError:
                return
            if not self._handshakes.acquire(blocking=False):
                # Those that keep the others waiting run into the time limit.
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), name="tls client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        try:
            protected = self._let_in(connection)
        except (OSError, ValueError) as error:
            connection.close()
            self._handshakes.release()
            if not self._closed:
                self._tell(f"a client was not let in from {peer}: {in_words(error)}")
            return
        here, there = socket.socketpair()
        carrier, this = Carrier(protected, there), threading.current_thread()
        with self._changing:
            if self._closed:
                here.close()
            else:
                # `accept` gives the place back.
                self._admitted.put(here)
            self._carriers.add(this)
        try:
            carrier.run()
        finally:
            with self._changing:
                self._carriers.discard(this)

    def _let_in(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection under TLS; OSError or ValueError if its client is not one to let in."""
        if connection.family != socket.AF_UNIX:
            # An acknowledgement and the answer behind it are two small pieces.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_HANDSHAKE_PATIENCE)
        protected = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        try:
            with self._changing:
                if self._closed:
                    raise OSError("the door is closed")
                self._outside.add(protected)
            try:
                protected.do_handshake()
            finally:
                with self._changing:
                    self._outside.discard(protected)
            reason = why_not(names_in(protected), self._allowed)
            if reason is not None:
                raise ValueError(reason)
        except BaseException:
            protected.close()
            raise
        return protected
