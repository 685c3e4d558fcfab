"""The debuggers of a guest, one at a time."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Final

from chronovisor.machine.debugger.gdb_protocol import ACKNOWLEDGED, frame
from chronovisor.machine.debugger.gdb_session import Session
from chronovisor.machine.debugger.inspector import Inspector, StoppedTime
from chronovisor.machine.debugger.past import Past
from chronovisor.machine.door import Door
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest

_ONE_AT_A_TIME: Final = b"E.another debugger has this guest: detach that one first"


class GdbServer:
    """Lets one debugger at a time at a guest, by the `door`, until it is closed.

    `time` stops the guest and lets it go on; `guest_time` is the stopped guest's timebase. `tell` is told a
    line when a debugger comes and goes. A debugger can go back into the `past`, if there is one. `human`
    answers lines of the human monitor for the vCPU with that id; without it such lines are refused.
    """

    def __init__(
        self,
        guest: Guest,
        door: Door,
        time: StoppedTime,
        guest_time: Callable[[], int],
        tell: Callable[[str], None] = lambda line: None,
        past: Past | None = None,
        human: Callable[[str, int], str] | None = None,
    ) -> None:
        self._door = door
        self._guest_time = guest_time
        self._tell = tell
        self._human = human
        self._waking, self._wake = socket.socketpair()
        self._waking.setblocking(False)
        self._inspector = Inspector(guest, time, self._wake_up, past)
        self._serving = threading.Lock()
        self._session: threading.Thread | None = None
        threading.Thread(target=self._accept, name="gdb", daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens: HOST:PORT, or a path."""
        return self._door.address

    @property
    def is_under_tls(self) -> bool:
        """Whether debuggers have to speak TLS."""
        return self._door.is_under_tls

    @property
    def connect(self) -> str:
        """What to type in gdb."""
        if not self.is_under_tls:
            return f"target remote {self.address}"
        # gdb speaks no TLS itself.
        words = ("openssl s_client -quiet -verify_quiet -verify_return_error", f"-connect {self.address}")
        files = "-CAfile ca-cert.pem -cert client-cert.pem -key client-key.pem"
        return " ".join(("target remote |", *words, *_whose_certificate(self.address), files))

    def close(self, timeout: float = 5.0) -> None:
        """End the debugger's session, which is told how the guest ended, and listen no more."""
        self._door.close()
        self._waking.close()
        if self._session is not None:
            self._session.join(timeout)
        self._door.finish(timeout)

    def _wake_up(self) -> None:
        # A full buffer wakes as well; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._waking.send(b"\0")

    def _accept(self) -> None:
        while True:
            try:
                connection = self._door.accept()
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
                Session(connection, self._wake, self._inspector, self._guest_time, self._human).run()
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


def _whose_certificate(address: str) -> tuple[str, ...]:
    """What openssl is told, so that it takes no other host's certificate."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return (f"-verify_hostname {host}",)
    # What listens at every address has no address of its own.
    return () if found.is_unspecified else (f"-verify_ip {host}",)
