"""A way between two sockets that knows the stream's frames, and breaks where it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass

from chronovisor.migration.address import Address
from chronovisor.migration.encoding import KINDS
from chronovisor.migration.stream import HEAD_SIZE, HEADER_SIZE

NAMES = {number: made.__name__ for number, (made, _) in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the first message of a kind in one direction; to its memory nothing does."""

    from_source: bool
    at: str
    """A message's name, or "header"."""
    kind: str
    """cut: it is lost and so is the connection; silence: nothing comes any more; corrupt: one bit is wrong;
    truncate: its first bytes come, then the end.
    """


class FaultyWay:
    """Listens, and passes what comes on to `target`. `fault` strikes on the first connection alone."""

    def __init__(self, target: Address, fault: Fault | None = None) -> None:
        self.target = target
        self._fault = fault
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.struck = threading.Event()
        """Set when the fault has struck."""
        self.address = Address("127.0.0.1", self._listener.getsockname()[1])
        self.open_again = True
        """Whether connections after the first are let through."""
        self._connections = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            _hang_up(each)

    def _accept(self) -> None:
        while True:
            try:
                source, _ = self._listener.accept()
            except OSError:
                return
            self._connections += 1
            if self._connections > 1 and not self.open_again:
                source.close()
                continue
            fault = self._fault if self._connections == 1 else None
            try:
                destination = socket.create_connection((self.target.host, self.target.port))
            except OSError:
                source.close()
                continue
            self._sockets += [source, destination]
            for ends, from_source in (((source, destination), True), ((destination, source), False)):
                mine = fault if fault is not None and fault.from_source is from_source else None
                threading.Thread(target=self._pass_on, args=(*ends, mine), daemon=True).start()

    def _pass_on(self, come: socket.socket, go: socket.socket, fault: Fault | None) -> None:
        with contextlib.suppress(OSError, EOFError):
            name = "header"
            while True:
                if name == "header":
                    message = _exactly(come, HEADER_SIZE)
                else:
                    head = _exactly(come, HEAD_SIZE)
                    name = NAMES.get(struct.unpack_from(">H", head, 4)[0], "memory")
                    message = head + _exactly(come, struct.unpack_from(">I", head, 8)[0])
                if fault is not None and fault.at == name and not self.struck.is_set():
                    self.struck.set()
                    if fault.kind == "silence":
                        while come.recv(1 << 16):
                            pass
                        break
                    if fault.kind == "cut":
                        break
                    if fault.kind == "truncate":
                        go.sendall(message[:-1])
                        break
                    message = message[:-1] + bytes([message[-1] ^ 1])
                go.sendall(message)
                name = ""
        _hang_up(come)
        _hang_up(go)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
