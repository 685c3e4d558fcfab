"""What a running guest's process does for debuggers: `run --gdb`, and `gdb` on a guest that runs already.

The debugger's modules are imported when one is asked for: `run` starts without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from chronovisor.cli.own_socket import OwnSocket
from chronovisor.cli.protection import Protection
from chronovisor.cli.time_away import TimeAway
from chronovisor.cli.time_options import MAX_STEP_DEFAULT, TIME_HELP, parse_policy
from chronovisor.machine.control import RequestHandler
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.sizes import parse_bytes
from chronovisor.timebase.policy import TimePolicy

if TYPE_CHECKING:
    from chronovisor.machine.debugger.gdb_server import GdbServer
    from chronovisor.machine.debugger.past import Past

ANY_PORT: Final = "127.0.0.1:0"
"""A port of this machine that is free."""
DEBUGGER_PLACE: Final = "[HOST:]PORT|tls:HOST:PORT|unix:PATH"
"""How a place for debuggers is written."""
GdbTime: TypeAlias = Annotated[
    str, typer.Option(help=f"While a debugger has the guest stopped: {TIME_HELP}", metavar="POLICY")
]
Record: TypeAlias = Annotated[
    str,
    typer.Option(
        help="In virtual time, keep so much of the guest's past (64M, 1G) that gdb can go back in it "
        "(reverse-continue).",
        metavar="SIZE",
    ),
]


@dataclass(frozen=True, slots=True)
class DebuggerOptions:
    """Where debuggers connect, whether the guest waits for one, and what stops are to its clock."""

    socket: OwnSocket
    wait: bool
    policy: TimePolicy


def parse_debugger(address: str, protection: Protection, wait: bool, time: str) -> DebuggerOptions | None:
    """Return what `--gdb`, `--wait` and `--gdb-time` say; None without a debugger.

    MachineError for what makes no sense.
    """
    if not address:
        return None
    socket = debugger_socket(address, "--gdb", protection)
    return DebuggerOptions(socket, wait, parse_policy(time, MAX_STEP_DEFAULT))


def debugger_socket(address: str, option: str, protection: Protection) -> OwnSocket:
    """Return where debuggers connect, from DEBUGGER_PLACE; MachineError for any other text."""
    if not address.startswith(("unix:", "tls:")):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        if not port.isdecimal():
            raise MachineError(f"{option} {address!r}: write [HOST:]PORT, tls:HOST:PORT or unix:PATH")
        address = f"tcp:{host or '127.0.0.1'}:{port}"
    return OwnSocket.parse(address, option, protection, any_port=True)


def parse_record(text: str) -> int:
    """Return the bytes that `--record` says; 0 for no text. MachineError if that makes no sense."""
    if not text:
        return 0
    size = parse_bytes(text, "size of the record")
    if not size:
        raise MachineError(f"size of the record {text!r}: nothing would be kept")
    return size


@dataclass(frozen=True, slots=True)
class _DebuggedTime:
    """Stops and resumes the guest as `pause` and `resume` do."""

    time_away: TimeAway
    policy: TimePolicy

    def stop(self) -> None:
        self.time_away.stop()

    def go_on(self) -> None:
        self.time_away.go_on(self.policy)

    def step_on(self) -> None:
        self.time_away.step_on()


class Debugging:
    """The debuggers of one guest: one place where they connect, once it is asked for.

    `human` answers a line of the human monitor, given it and the chosen vCPU.
    """

    def __init__(
        self,
        guest: Guest,
        time_away: TimeAway,
        tell: Callable[[str], None],
        human: Callable[[str, int], str],
    ) -> None:
        self._guest = guest
        self._time_away = time_away
        self._tell = tell
        self._human = human
        self._server: GdbServer | None = None
        self.handlers: dict[str, RequestHandler] = {"gdb": self._gdb}

    def open(self, options: DebuggerOptions) -> GdbServer:
        """Listen, and return who does. With `wait` the guest is stopped first."""
        from chronovisor.machine.debugger.gdb_server import GdbServer

        if self._server is None:
            time = _DebuggedTime(self._time_away, options.policy)
            self._server = GdbServer(
                self._guest,
                options.socket.open(),
                time,
                lambda: self._time_away.guest_time,
                self._tell,
                self._past(),
                self._human,
            )
            if options.wait:
                time.stop()
            self._tell(f"gdb can connect: {self._server.connect}")
        return self._server

    def record(self, size: int) -> None:
        """Keep so many bytes of the guest's past from now on; nothing if its past is kept already.

        MachineError if it cannot be recorded.
        """
        from chronovisor.migration.recording import Recording

        if self._guest.recorder is None:
            Recording(self._guest, size)

    def _past(self) -> Past | None:
        if self._guest.recorder is None:
            return None
        from chronovisor.migration.recording import Recording
        from chronovisor.migration.replay import Replay

        assert isinstance(self._guest.recorder, Recording)
        return Replay(self._guest.recorder)

    def close(self) -> None:
        """Tell a debugger how the guest ended, and listen no more."""
        if self._server is not None:
            self._server.close()

    def _gdb(self, request: dict[str, Any]) -> dict[str, Any]:
        protection = Protection.from_json(request["protection"])
        socket = debugger_socket(request["address"] or ANY_PORT, "--at", protection)
        options = DebuggerOptions(socket, False, TimePolicy.parse(request["time"]))
        if request["record"] and self._guest.recorder is None:
            if self._server is not None:
                raise MachineError("a debugger can connect already: what has passed cannot be recorded")
            self.record(request["record"])
        server = self.open(options)
        return {"address": server.address, "tls": server.is_under_tls, "connect": server.connect}
