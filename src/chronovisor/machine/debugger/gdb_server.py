"""Where debuggers connect: a TCP port of this machine alone, or a unix socket of the user's own."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chronovisor.machine.debugger.gdb_protocol import ACKNOWLEDGED, frame
from chronovisor.machine.debugger.gdb_session import Session
from chronovisor.machine.debugger.inspector import Inspector, StoppedTime
from chronovisor.machine.debugger.past import Past
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.run_directory import is_listened_to

_UNIX: Final = "unix:"
_ONE_AT_A_TIME: Final = b"E.another debugger has this guest: detach that one first"


def listen(address: str) -> socket.socket:
    """Listen at [HOST:]PORT or unix:PATH. MachineError if that is no such address, or it is in use.

    HOST has to be this machine's own (127.0.0.1 unless given): the protocol knows no passwords.
    """
    return _listen_at_path(address[len(_UNIX) :]) if address.startswith(_UNIX) else _listen_at_port(address)


def _listen_at_port(address: str) -> socket.socket:
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 0xFFFF or address.startswith("tls:"):
        raise MachineError(f"gdb {address!r}: write [HOST:]PORT or unix:PATH")
    try:
        family, *_, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise MachineError(f"gdb {address}: {error.strerror or error}") from None
    if not ipaddress.ip_address(place[0]).is_loopback:
        raise MachineError(
            f"gdb {address}: gdb's protocol knows no passwords, so debuggers of this machine alone are heard "
            "(127.0.0.1); from elsewhere come through `ssh -L`"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise MachineError(f"gdb {address}: {error.strerror or error}") from None
    return listener


def _listen_at_path(path: str) -> socket.socket:
    with contextlib.suppress(OSError):
        if Path(path).is_socket() and not is_listened_to(Path(path)):
            # A process that was killed left it.
            Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody else can connect from the first moment on, whatever the directory allows.
    before = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(1)
    except (OSError, ValueError) as error:
        listener.close()
        raise MachineError(f"gdb unix:{path}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        os.umask(before)
    return listener


class GdbServer:
    """Lets one debugger at a time at a guest, until it is closed.

    `time` stops the guest and lets it go on; `guest_time` is the stopped guest's timebase. `tell` is told a
    line when a debugger comes and goes. A debugger can go back into the `past`, if there is one.
    """

    def __init__(
        self,
        guest: Guest,
        address: str,
        time: StoppedTime,
        guest_time: Callable[[], int],
        tell: Callable[[str], None] = lambda line: None,
        past: Past | None = None,
    ) -> None:
        self._listener = listen(address)
        self._path = address[len(_UNIX) :] if address.startswith(_UNIX) else None
        self._guest_time = guest_time
        self._tell = tell
        self._waking, self._wake = socket.socketpair()
        self._waking.setblocking(False)
        self._inspector = Inspector(guest, time, self._wake_up, past)
        self._serving = threading.Lock()
        self._session: threading.Thread | None = None
        threading.Thread(target=self._accept, name="gdb", daemon=True).start()

    @property
    def address(self) -> str:
        """What gdb's `target remote` takes."""
        if self._path is not None:
            return str(Path(self._path).absolute())
        host, port = self._listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def close(self, timeout: float = 5.0) -> None:
        """End the debugger's session, which is told how the guest ended, and listen no more."""
        if self._path is not None:
            Path(self._path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._waking.close()
        if self._session is not None:
            self._session.join(timeout)

    def _wake_up(self) -> None:
        # A full buffer wakes as well; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self._serving.acquire(blocking=False):
                # On this thread: however many come, nothing grows.
                with connection:
                    self._refuse(connection, _ONE_AT_A_TIME)
                continue
            session = threading.Thread(target=self._serve, args=(connection,), name="debugger", daemon=True)
            session.start()
            # Only now: one that has not begun cannot be waited for.
            self._session = session

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                if connection.family != socket.AF_UNIX:
                    # An acknowledgement and the answer behind it are two small pieces.
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._tell("a debugger has come: the guest is stopped")
                Session(connection, self._wake, self._inspector, self._guest_time).run()
                self._tell("the debugger has left")
            except MachineError as error:
                self._tell(f"the debugger has left: {error}")
                self._refuse(connection, b"E." + str(error).encode())
            finally:
                self._serving.release()

    @staticmethod
    def _refuse(connection: socket.socket, why: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(1.0)
            connection.recv(4096)
            connection.sendall(ACKNOWLEDGED + frame(why))
