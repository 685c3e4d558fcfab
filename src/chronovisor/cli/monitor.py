"""QMP's commands, done by what answers `pause`, `resume`, `migrate`, `reg` and `stop`."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from chronovisor import __version__
from chronovisor.cli.entrance import Entrance
from chronovisor.cli.human_monitor import HumanMonitor
from chronovisor.cli.incoming_move import IncomingMove
from chronovisor.cli.monitor_moves import MoveCommands, Subject, required
from chronovisor.cli.monitor_objects import Objects
from chronovisor.cli.own_socket import OwnSocket
from chronovisor.machine.control import RequestHandler
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.qmp.declarations import SCHEMA
from chronovisor.machine.qmp.server import QmpServer
from chronovisor.machine.qmp.session import Implementation
from chronovisor.migration.departure import Departure
from chronovisor.migration.move_status import MoveStatus
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import FREEZE

_QEMU: Final = {"major": 7, "minor": 2, "micro": 0}
"""The version of QEMU whose answers ours were compared with."""
_RUN_STATES: Final = {
    "running": "running",
    "paused": "paused",
    "undecided": "finish-migrate",
    "ended": "shutdown",
}
_CAUSES: Final = {
    EndReason.POWER_OFF: "guest-shutdown",
    EndReason.REBOOT: "guest-reset",
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
        version = {"qemu": _QEMU, "package": f"chronovisor {__version__}"}
        self._server = QmpServer(
            socket.open(),
            SCHEMA,
            self._implementations(version),
            {"QMP": {"version": version, "capabilities": []}},
        )

    def attach(
        self,
        guest: Guest,
        departure: Departure,
        moves: MoveStatus,
        handlers: Mapping[str, RequestHandler],
    ) -> None:
        """Answer for this guest from now on, which `handlers` control."""
        came = self._entrance is not None
        self._subject = Subject(guest, departure, moves, handlers)
        departure.on_pause = self._tell_pause
        moves.changed = self._moves.tell_move
        guest.platform.on_restart = self._tell_restart
        if came and departure.paused is None:
            self._tell_pause(False)
        if self._incoming is not None:
            self._incoming.complete()

    @property
    def _guest(self) -> Guest:
        return self._its.guest

    @property
    def _departure(self) -> Departure:
        return self._its.departure

    @property
    def _handlers(self) -> Mapping[str, RequestHandler]:
        return self._its.handlers

    @property
    def _its(self) -> Subject:
        return required(self._subject)

    def __enter__(self) -> Monitor:
        # Not before: a client is to find the guest, if there is one.
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        end = None if self._subject is None else self._guest.end
        try:
            if kind is None and end is not None and end.reason is EndReason.MOVED:
                self._server.wait_for_clients(lambda: self._quit, self._stay)
        finally:
            self._server.tell("SHUTDOWN", self._cause(end))
            self._told_end.set()
            self._server.close()

    def _implementations(self, version: dict[str, Any]) -> dict[str, Implementation]:
        done: dict[str, Implementation] = {
            "query-version": lambda given: version,
            "query-commands": lambda given: [{"name": command.name} for command in SCHEMA.commands],
            "query-qmp-schema": lambda given: SCHEMA.introspect(),
            "query-name": lambda given: {} if self._subject is None else {"name": self._guest.name},
            "query-status": self._query_status,
            "query-cpus-fast": self._query_cpus,
            "stop": self._stop,
            "cont": self._cont,
            "system_reset": lambda given: self._handlers["reset"]({}),
            "system_powerdown": self._power_down,
            "quit": self._end,
            **self._moves.implementations,
            **self._objects.implementations,
            "dump-guest-memory": self._dump,
            "query-dump-guest-memory-capability": lambda given: {"formats": ["elf"]},
            "query-target": lambda given: {"arch": "ppc64"},
            "query-memory-size-summary": lambda given: {
                "base-memory": self._guest.memory.size,
                "plugged-memory": 0,
            },
        }
        return done | {"human-monitor-command": HumanMonitor(done, self._registers).answer}

    # The guest

    def _query_status(self, given: dict[str, Any]) -> dict[str, Any]:
        if self._subject is None:
            return {
                "running": False,
                "singlestep": False,
                "status": "inmigrate",
                "x-chronovisor": "waiting",
            }
        state, running = self._departure.state, self._guest.running
        if self._moved:
            status = "postmigrate"
        elif state == "paused" and not self._guest.thread_id():
            status = "prelaunch"
        elif state == "moving":
            status = "running" if running else "finish-migrate"
        else:
            status = _RUN_STATES[state]
        return {"running": running, "singlestep": False, "status": status, "x-chronovisor": state}

    @property
    def _moved(self) -> bool:
        return self._guest.end is not None and self._guest.end.reason is EndReason.MOVED

    def _query_cpus(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        threads = self._guest.topology.threads
        return [
            {
                "cpu-index": vcpu,
                "thread-id": self._guest.thread_id(vcpu),
                "target": "ppc64",
                "props": {"core-id": vcpu - vcpu % threads},
            }
            for vcpu in range(self._guest.topology.vcpus)
        ]

    def _stop(self, given: dict[str, Any]) -> None:
        if self._departure.paused is None and not self._moved:
            self._handlers["pause"]({})

    def _cont(self, given: dict[str, Any]) -> None:
        if self._moved:
            raise MachineError(f"{self._guest.name} has moved away, so it cannot go on here")
        if self._departure.paused is not None:
            self._handlers["resume"]({"time": str(FREEZE), "limit": CLOCK_ERROR_LIMIT.value})

    def _power_down(self, given: dict[str, Any]) -> None:
        with self._departure.no_move(), self._guest.held():
            self._guest.platform.power_button.press()
        self._server.tell("POWERDOWN", {})

    def _end(self, given: dict[str, Any]) -> None:
        self._quit = True
        if self._subject is None:
            if self._entrance is not None:
                self._entrance.give_up()
            return
        try:
            if self._guest.end is None:
                self._handlers["stop"]({"reason": EndReason.QUIT.value})
        except BaseException:
            self._quit = False
            raise
        self._server.look_again()
        # Clients hear of the end first, as from QEMU.
        self._told_end.wait(_QUIT_PATIENCE)

    def _dump(self, given: dict[str, Any]) -> None:
        if given["paging"]:
            raise MachineError("a dump has real addresses and Linux's linear map: say paging false")
        protocol, _, path = given["protocol"].partition(":")
        if protocol != "file" or not path:
            raise MachineError("a dump is written to a file: say protocol file:PATH")
        self._handlers["dump"]({"path": os.path.abspath(path)})

    # For people

    def _registers(self, vcpu: int) -> str:
        shown = self._handlers["reg"]({"vcpu": vcpu, "register": None, "value": None})
        lines = [f"{name:12} {found['value']:0{2 * found['size']}x}" for name, found in shown.items()]
        return "\r\n".join([f"CPU#{vcpu}", *lines, ""])

    # Events

    def _tell_pause(self, paused: bool) -> None:
        self._server.tell("STOP" if paused else "RESUME", {})

    def _tell_restart(self, by_guest: bool) -> None:
        reason = "guest-reset" if by_guest else "host-qmp-system-reset"
        self._server.tell("RESET", {"guest": by_guest, "reason": reason})

    def _cause(self, end: GuestEnd | None) -> dict[str, Any]:
        if self._quit:
            return {"guest": False, "reason": "host-qmp-quit"}
        reason = "host-signal" if end is None else _CAUSES.get(end.reason, "host-signal")
        return {"guest": reason.startswith("guest"), "reason": reason}
