"""QMP's commands about a guest, done by what answers `pause`, `resume`, `reg` and `stop`.

QMP's monitor has them, and so have the lines of the human monitor, at whatever tool they are typed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chronovisor import __version__
from chronovisor.machine.control import RequestHandler
from chronovisor.machine.ending import EndReason
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.qmp.session import Implementation
from chronovisor.migration.departure import Departure
from chronovisor.migration.move_status import MoveStatus
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import FREEZE

VERSION: Final = {
    "qemu": {"major": 7, "minor": 2, "micro": 0},
    "package": f"chronovisor {__version__}",
}
"""The answer to `query-version`: the version of QEMU whose answers ours were compared with, and our own."""
_RUN_STATES: Final = {
    "running": "running",
    "paused": "paused",
    "undecided": "finish-migrate",
    "ended": "shutdown",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The guest that commands are about, and what it is controlled by."""

    guest: Guest
    departure: Departure
    moves: MoveStatus
    handlers: Mapping[str, RequestHandler]


class GuestCommands:
    """Does the commands for the guest that `subject` returns, if there is one."""

    def __init__(self, subject: Callable[[], Subject | None]) -> None:
        self._subject = subject
        self.implementations: dict[str, Implementation] = {
            "query-version": lambda given: VERSION,
            "query-name": lambda given: {} if subject() is None else {"name": self._guest.name},
            "query-status": self._query_status,
            "query-cpus-fast": self._query_cpus,
            "stop": self._stop,
            "cont": self._cont,
            "system_reset": lambda given: self._handlers["reset"]({}),
            "system_powerdown": self._power_down,
            "quit": self._quit,
            "dump-guest-memory": self._dump,
            "query-dump-guest-memory-capability": lambda given: {"formats": ["elf"]},
            "query-target": lambda given: {"arch": "ppc64"},
            "query-memory-size-summary": lambda given: {
                "base-memory": self._guest.memory.size,
                "plugged-memory": 0,
            },
        }

    @property
    def _its(self) -> Subject:
        return required(self._subject())

    @property
    def _guest(self) -> Guest:
        return self._its.guest

    @property
    def _departure(self) -> Departure:
        return self._its.departure

    @property
    def _handlers(self) -> Mapping[str, RequestHandler]:
        return self._its.handlers

    def _query_status(self, given: dict[str, Any]) -> dict[str, Any]:
        if self._subject() is None:
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

    def _quit(self, given: dict[str, Any]) -> None:
        if self._guest.end is None:
            self._handlers["stop"]({"reason": EndReason.QUIT.value})

    def _dump(self, given: dict[str, Any]) -> None:
        if given["paging"]:
            raise MachineError("a dump has real addresses and Linux's linear map: say paging false")
        protocol, _, path = given["protocol"].partition(":")
        if protocol != "file" or not path:
            raise MachineError("a dump is written to a file: say protocol file:PATH")
        self._handlers["dump"]({"path": os.path.abspath(path)})

    def registers(self, vcpu: int) -> str:
        """Return a vCPU's registers, in lines for people."""
        shown = self._handlers["reg"]({"vcpu": vcpu, "register": None, "value": None})
        lines = [f"{name:12} {found['value']:0{2 * found['size']}x}" for name, found in shown.items()]
        return "\r\n".join([f"CPU#{vcpu}", *lines, ""])


def required(subject: Subject | None) -> Subject:
    """Return the guest that commands are about; MachineError if there is none yet."""
    if subject is None:
        raise MachineError("no guest has come yet")
    return subject
