"""The monitor: QMP's clients, their commands, and the events that they are told."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final

from chronovisor.cli.entrance import Entrance
from chronovisor.cli.guest_commands import VERSION, GuestCommands, Subject, required
from chronovisor.cli.human_monitor import HumanMonitor
from chronovisor.cli.incoming_move import IncomingMove
from chronovisor.cli.monitor_moves import MoveCommands
from chronovisor.cli.monitor_objects import Objects
from chronovisor.cli.own_socket import OwnSocket
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.server import QmpServer
from chronovisor.machine.qmp.session import Implementation

_CAUSES: Final = {
    EndReason.POWER_OFF: "guest-shutdown",
    EndReason.REBOOT: "guest-reset",
    EndReason.QUIT: "host-qmp-quit",
    EndReason.RESET: "host-qmp-system-reset",
    EndReason.PANIC: "guest-panic",
    EndReason.CRASH: "guest-panic",
    EndReason.INTERNAL_ERROR: "host-error",
    EndReason.OUTPUT_LOST: "host-error",
}
_QUIT_PATIENCE: Final = 10.0
"""Seconds in which a guest that was told to quit has ended."""


class Monitor:
    """Answers QMP's clients at `socket` inside the context, for a guest that comes with `attach`.

    MachineError if it cannot listen there. At the context's end clients are told how the guest ended. If it
    has moved away, the monitor stays until a client says `quit`, or there is no client unless it is to
    `stay`. Moves can use the credentials among the `objects`. The guest comes in by the `entrance`, if there
    is one, and `incoming` is told of its move.
    """

    def __init__(
        self,
        socket: OwnSocket,
        stay: bool,
        objects: Objects,
        entrance: Entrance | None = None,
        incoming: IncomingMove | None = None,
    ) -> None:
        self._subject: Subject | None = None
        self._stay = stay
        self._entrance = entrance
        self._incoming = incoming
        self._quit = False
        self._told_end = threading.Event()
        self._moves = MoveCommands(
            lambda: self._subject,
            objects,
            entrance,
            incoming,
            lambda name, data: self._server.tell(name, data),
        )
        self._objects = objects
        self._guest_commands = GuestCommands(lambda: self._subject)
        self._server = QmpServer(
            socket.open(),
            SCHEMA,
            self._implementations(),
            {"QMP": {"version": VERSION, "capabilities": []}},
        )

    def attach(self, subject: Subject) -> None:
        """Answer for this guest from now on."""
        came = self._entrance is not None
        self._subject = subject
        subject.departure.on_pause = self._tell_pause
        subject.moves.changed = self._moves.tell_move
        subject.dumps.stopped, subject.dumps.completed = self._tell_pause, self._tell_dump
        platform = subject.guest.platform
        platform.on_restart = self._tell_restart
        platform.power_button.on_press = self._tell_power_down
        if came and subject.departure.paused is None:
            self._tell_pause(False)
        if self._incoming is not None:
            self._incoming.complete()

    def __enter__(self) -> Monitor:
        # Not before: a client is to find the guest, if there is one.
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        end = None if self._subject is None else self._subject.guest.end
        try:
            if kind is None and end is not None and end.reason is EndReason.MOVED:
                self._server.wait_for_clients(lambda: self._quit, self._stay)
        finally:
            if end is not None and end.reason is EndReason.PANIC:
                self._server.tell("GUEST_PANICKED", {"action": "poweroff"})
            self._server.tell("SHUTDOWN", self._cause(end))
            self._told_end.set()
            self._server.close()

    def _implementations(self) -> dict[str, Implementation]:
        done: dict[str, Implementation] = {
            "query-commands": lambda given: [{"name": command.name} for command in SCHEMA.commands],
            "query-qmp-schema": lambda given: SCHEMA.introspect(),
            **self._guest_commands.implementations,
            "quit": self._end,
            **self._moves.implementations,
            **self._objects.implementations,
        }
        return done | {"human-monitor-command": HumanMonitor(done, self._guest_commands).answer}

    def _end(self, given: dict[str, Any]) -> None:
        self._quit = True
        if self._subject is None:
            if self._entrance is not None:
                self._entrance.give_up()
            return
        try:
            self._guest_commands.implementations["quit"](given)
        except BaseException:
            self._quit = False
            raise
        self._server.look_again()
        # Clients hear of the end first, as from QEMU.
        self._told_end.wait(_QUIT_PATIENCE)

    # Events

    def _tell_pause(self, paused: bool) -> None:
        self._server.tell("STOP" if paused else "RESUME", {})

    def _tell_dump(self, error: str | None) -> None:
        result = {"result": required(self._subject).dumps.as_json()}
        self._server.tell("DUMP_COMPLETED", result if error is None else result | {"error": error})

    def _tell_power_down(self) -> None:
        self._server.tell("POWERDOWN", {})

    def _tell_restart(self, by_guest: bool) -> None:
        reason = "guest-reset" if by_guest else "host-qmp-system-reset"
        self._server.tell("RESET", {"guest": by_guest, "reason": reason})

    def _cause(self, end: GuestEnd | None) -> dict[str, Any]:
        if self._quit:
            return {"guest": False, "reason": "host-qmp-quit"}
        reason = "host-signal" if end is None else _CAUSES.get(end.reason, "host-signal")
        return {"guest": reason.startswith("guest"), "reason": reason}
