"""QMP's commands about a guest, done by what answers `pause`, `resume`, `reg` and `stop`.

QMP's monitor has them, and so have the lines of the human monitor, at whatever tool they are typed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chronovisor import __version__
from chronovisor.cli import register_table
from chronovisor.cli.dump_status import DumpStatus
from chronovisor.machine.control import RequestHandler
from chronovisor.machine.debugger.guest_addresses import NoAddressError, read_through
from chronovisor.machine.ending import EndReason
from chronovisor.machine.entry import MSR_LE
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.qmp.session import Implementation
from chronovisor.migration.departure import Departure
from chronovisor.migration.move_status import MoveStatus
from chronovisor.migration.whole_file import replacing
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import FREEZE

VERSION: Final = {
    "qemu": {"major": 7, "minor": 2, "micro": 0},
    "package": f"chronovisor {__version__}",
}
"""The answer to `query-version`: the version of QEMU whose answers ours were compared with, and our own."""
_MASK: Final = (1 << 64) - 1
_PIECE: Final = 1 << 20
"""Bytes that are written at a time."""
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
    dumps: DumpStatus


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
            "memsave": self._save_effective,
            "pmemsave": self._save_real,
            "dump-guest-memory": self._dump,
            "query-dump": lambda given: self._its.dumps.as_json(),
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

    def _save_effective(self, given: dict[str, Any]) -> None:
        self.check_vcpu(given.get("cpu-index", 0))
        self._save(given, given.get("cpu-index", 0))

    def _save_real(self, given: dict[str, Any]) -> None:
        self._save(given, None)

    def _save(self, given: dict[str, Any], vcpu: int | None) -> None:
        address, size, path = given["val"] & _MASK, given["size"], os.path.abspath(given["filename"])
        if not 0 <= size <= self._guest.memory.size:
            raise MachineError(f"Parameter 'size' expects 0 to {self._guest.memory.size} bytes")
        try:
            # Held all the time: it is one moment's memory.
            with replacing(Path(path)) as file, self._departure.no_move(), self._guest.held():
                for at in range(0, size, _PIECE):
                    wanted = min(_PIECE, size - at)
                    piece = self._read(vcpu, (address + at) & _MASK, wanted)
                    if len(piece) < wanted:
                        raise MachineError(f"Invalid addr 0x{address:016x}/size {size} specified")
                    file.write(piece)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(f"Could not open '{given['filename']}': {reason}") from None

    # For people

    def has_vcpu(self, vcpu: int) -> bool:
        """Whether the guest has this vCPU, or there is no guest yet."""
        return self._subject() is None or vcpu in range(self._guest.topology.vcpus)

    def check_vcpu(self, vcpu: int) -> None:
        """MachineError unless there is no guest yet, or it has this vCPU."""
        if not self.has_vcpu(vcpu):
            raise MachineError("Parameter 'cpu-index' expects a CPU number")

    def registers(self, vcpu: int) -> str:
        """Return a vCPU's registers, in lines for people."""
        shown = self._handlers["reg"]({"vcpu": vcpu, "register": None, "value": None})
        values = {name: found["value"] for name, found in shown.items()}
        time = self._handlers["ps"]({})["guest_tb"]
        return "".join(f"{line}\r\n" for line in register_table.lines(vcpu, values, time or 0))

    def register(self, vcpu: int, name: str) -> int:
        """Return a register by KVM's name or QEMU's (`nip`), in upper or lower case."""
        kvm = "PC" if name.lower() == "nip" else name.upper()
        answer = self._handlers["reg"]({"vcpu": vcpu, "register": kvm, "value": None})
        return int(answer[kvm]["value"])

    def is_little_endian(self, vcpu: int) -> bool:
        """Whether a vCPU is in the little-endian mode."""
        return bool(self.register(vcpu, "MSR") & MSR_LE)

    def read_memory(self, vcpu: int | None, address: int, size: int) -> bytes:
        """Return the bytes at an address, up to the first that is not there: one as a vCPU's kernel would
        translate it, or a guest real one without a vCPU.
        """
        with self._departure.no_move(), self._guest.held():
            return self._read(vcpu, address, size)

    def _read(self, vcpu: int | None, address: int, size: int) -> bytes:
        guest = self._guest
        translating = None if vcpu is None else next(found for found in guest.vcpus if found.id == vcpu)

        def real(at: int) -> int:
            found = at if translating is None else translating.translate(at & _MASK)
            if found is None or found >= guest.memory.size:
                raise NoAddressError
            return found

        try:
            return read_through(guest.memory, real, address, size)
        except NoAddressError:
            return b""


def required(subject: Subject | None) -> Subject:
    """Return the guest that commands are about; MachineError before it has come."""
    if subject is None:
        raise MachineError("no guest has come yet")
    return subject
