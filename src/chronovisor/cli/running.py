"""What `run` and `receive` share: a guest that runs here under a name, until it ends or moves away."""

from __future__ import annotations

import base64
import math
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from chronovisor.cli.debugging import DebuggerOptions, Debugging
from chronovisor.cli.dump_status import DumpStatus
from chronovisor.cli.guest_end import EndReport, end_as_json, ended_by
from chronovisor.cli.output import say
from chronovisor.cli.terminal import end_this_process, kill_this_process
from chronovisor.cli.time_away import TimeAway
from chronovisor.kvm.registers import all_registers, register_size
from chronovisor.machine.console_sessions import ConsoleSessions
from chronovisor.machine.control import (
    FAILED,
    UNDECIDED,
    ControlError,
    ControlServer,
    RequestHandler,
)
from chronovisor.machine.dispatch_log_reader import vcpus_with_log
from chronovisor.machine.ending import EndReason
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.stolen_time import stolen_time
from chronovisor.migration.departure import Departure
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.migration.move_status import MoveStatus
from chronovisor.migration.tracing import UNTRACED, MoveTrace

if TYPE_CHECKING:
    from chronovisor.cli.guest_commands import Subject
    from chronovisor.cli.monitor import Monitor
    from chronovisor.cli.monitor_options import MonitorOptions
    from chronovisor.cli.own_socket import OwnSocket
    from chronovisor.migration.pause import Pause
    from chronovisor.migration.transfer import MoveReport

_SIGN_OF_LIFE: Final = 1.0
"""Seconds from one sign of life to the next, to those who wait for the guest's end."""
_BETWEEN_PROGRESS: Final = 0.2
"""Seconds from one line about a move's progress to the next."""
_PATIENCE: Final = 1.0
"""Seconds for which `ps` and `top` wait for others: they can leave out what they would have to wait for."""
_ENTRIES_SENT: Final = 8192
"""Entries of a dispatch trace log in one answer: some half of the longest line."""


def generated_name() -> str:
    """A name for a guest that was given none."""
    return f"guest-{os.getpid()}"


def run_named(
    guest: Guest,
    name: str,
    timeout: float | None,
    server: ControlServer | None = None,
    begun: Callable[[], None] = lambda: None,
    paused: Pause | None = None,
    debugger: DebuggerOptions | None = None,
    record: int = 0,
    qmp: MonitorOptions | None = None,
    monitor: Monitor | None = None,
    trace: MoveTrace = UNTRACED,
    console: OwnSocket | None = None,
    stats: bool = False,
    ended: Callable[[dict[str, Any], EndReport | None], None] = lambda end, report: None,
) -> EndReport:
    """Let the guest run until its end here, and have it found by `name` meanwhile.

    `server` answers for the name already, if there is one, and is not closed; `begun` is called when the
    guest runs and is found, `ended` (see `Foreground.ended`) before its name is given back. A guest that is
    `paused` runs when it is resumed. A `debugger` can connect before it runs; `record` bytes of its past are
    kept for debuggers. A monitor answers as `qmp` says; if the guest has moved away, it keeps this process
    until it is told to quit or, unless it is to stay, has no client left. A `monitor` that is there already
    answers for this guest, too. The `trace` is told of moves from here. Clients of the guest's console can
    connect at `console`.
    MachineError if the name is taken.
    """
    guest.name = name
    guest.platform.on_trouble = say
    service = _Service(guest, trace)
    report = None
    service.departure.paused = paused
    with (
        service.monitor(qmp) if qmp is not None else nullcontext(),
        service.console_socket(console) if console is not None else nullcontext(),
        ControlServer(name, {}) if server is None else nullcontext(server) as answering,
    ):
        answering.handlers.update(service.handlers)
        if monitor is not None:
            service.attach(monitor)
        try:
            if record:
                service.debugging.record(record)
            if debugger is not None:
                service.debugging.open(debugger)
            waits = paused is not None or (debugger is not None and debugger.wait)
            end = guest.run(timeout, begun, paused=waits)
            service.departure.wait_until_done()
            report = EndReport(guest.end or end, guest if stats else None)
            service.end = end_as_json(report.end)
        except BaseException as error:
            service.departure.wait_until_done()
            service.end = ended_by(error)
            raise
        finally:
            service.debugging.close()
            if service.end is not None:
                ended(service.end, report)
            service.close()
    return report


def before_the_guest(name: str, state: str) -> dict[str, RequestHandler]:
    """Return what a process answers that has no guest yet."""
    nothing = dict.fromkeys(("vcpus", "memory", "host_tb", "guest_tb", "tb_offset"))
    answer = {"name": name, "pid": os.getpid(), "state": state, **nothing}
    return {"ps": lambda request: answer, "stop": end_this_process}


def parse_seconds(text: str, what: str = "timeout") -> float | None:
    """A number of seconds above 0; None for no text, MachineError for any other."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise MachineError(f"{what} {text!r}: write a number of seconds above 0")
    return seconds


class _Service:
    """What a running guest's process answers."""

    def __init__(self, guest: Guest, trace: MoveTrace) -> None:
        self._guest = guest
        self._moves = MoveStatus()
        self.departure = Departure(guest, say, self._moves.probe, trace)
        self._dumps = DumpStatus()
        self._time_away = TimeAway(guest, self.departure, self._dumps)
        self._human: Callable[[dict[str, Any]], str] | None = None
        self.debugging = Debugging(guest, self._time_away, say, self._answer_line)
        self._console = ConsoleSessions(guest.console)
        self.end: dict[str, Any] | None = None
        """How the guest ended, for those who wait for that."""
        self._over = threading.Event()
        self.handlers: dict[str, RequestHandler] = {
            "ps": self._ps,
            "top": self._top,
            "reg": self._reg,
            "dtl": self._dtl,
            "migrate": self._migrate,
            "reset": self._reset,
            "stop": self._stop,
            "kill": kill_this_process,
            "wait": self._wait,
            "console": self._console.answer,
            **self._time_away.handlers,
            **self.debugging.handlers,
        }

    def close(self) -> None:
        """End the sessions at the console, and tell those who wait for the guest's end."""
        self._console.close()
        self._over.set()

    def _wait(self, request: dict[str, Any]) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Tell how the guest ended, once it has; nothing after `within` seconds. Give signs of life."""
        deadline = math.inf if request["within"] is None else time.monotonic() + request["within"]
        while not self._over.wait(max(0, min(_SIGN_OF_LIFE, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return {}
            yield {}
        return self.end or {}

    def _ps(self, request: dict[str, Any]) -> dict[str, Any]:
        guest = self._guest
        answer: dict[str, Any] = {
            "name": guest.name,
            "pid": os.getpid(),
            "state": self.departure.state,
            "vcpus": guest.topology.vcpus,
            "memory": guest.memory.size,
            "host_tb": None,
            "guest_tb": None,
            "tb_offset": None,
        }
        try:
            with self.departure.no_move(_PATIENCE), guest.held():
                offset = guest.get("TB_OFFSET")
                now = guest.system.clock.now().value
                stopped = self._time_away.stopped_time
        except MachineError:
            answer["state"] = self.departure.state
            moving = self.departure.offset
            if moving is None:
                # It is stopped for its move: neither host's time is the guest's now.
                return answer
            # It runs here while its memory is sent. Its offset was read when the move began.
            now, offset, stopped = guest.system.clock.now().value, moving.value, None
        # A paused guest's time stands still until `resume` says how it continues.
        guest_tb = (now + offset) & ((1 << 64) - 1) if stopped is None else stopped.value
        return answer | {"host_tb": now, "guest_tb": guest_tb, "tb_offset": offset}

    def _top(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with self.departure.no_move(_PATIENCE):
                found, stolen = self._guest.statistics(), stolen_time(self._guest)
        except MachineError:
            # It moves, and is not to be held up.
            found = stolen = None
        counted = None
        if found is not None:
            counted = asdict(found.instructions) | {"total": found.instructions.total}
        error = self._guest.ideal.rounding
        return self._ps({}) | {
            "instructions": counted,
            "exits": self._guest.exits,
            "stolen_ticks": None if stolen is None else stolen.value,
            "clock_error_ticks": error.value,
        }

    def _reg(self, request: dict[str, Any]) -> dict[str, dict[str, int]]:
        guest, vcpu = self._guest, request["vcpu"]
        chosen, value = request["register"], request["value"]
        with self.departure.no_move(), guest.held():
            if value is not None:
                guest.set(chosen, value, vcpu)
            if chosen is not None:
                return {chosen.upper(): {"value": guest.get(chosen, vcpu), "size": register_size(chosen)}}
            guest.get("PC", vcpu)
            of = next(v for v in guest.vcpus if v.id == vcpu)
            return {
                name: {"value": value, "size": register_size(name)}
                for name, value in all_registers(of).items()
            }

    def _dtl(self, request: dict[str, Any]) -> dict[str, Any]:
        """Without a vCPU: which ones have a log. With one: its entries from number `start` on, as many as
        fit.
        """
        guest, vcpu = self._guest, request["vcpu"]
        with self.departure.no_move():
            if vcpu is None:
                return {"vcpus": vcpus_with_log(guest), "frequency": guest.system.clock.source.frequency}
            log = guest.dispatch_log(vcpu, request["start"], _ENTRIES_SENT)
        packed = base64.b64encode(b"".join(entry.pack() for entry in log.entries)).decode()
        return {"first": log.first, "end": log.written, "entries": packed}

    def monitor(self, options: MonitorOptions) -> AbstractContextManager[object]:
        """Return the monitor for QMP's clients; MachineError if it cannot listen there."""
        monitor = options.monitor()
        self.attach(monitor)
        return monitor

    def attach(self, monitor: Monitor) -> None:
        """Have the monitor answer for this guest."""
        monitor.attach(self._subject())

    def _subject(self) -> Subject:
        from chronovisor.cli.guest_commands import Subject

        return Subject(self._guest, self.departure, self._moves, self.handlers, self._dumps)

    def _answer_line(self, line: str, vcpu: int) -> str:
        """Answer a line of the human monitor, which a debugger's user has typed with that vCPU chosen."""
        if self._human is None:
            from chronovisor.cli.guest_commands import GuestCommands
            from chronovisor.cli.human_monitor import HumanMonitor

            commands = GuestCommands(self._subject)
            self._human = HumanMonitor(commands.implementations, commands).answer
        return self._human({"command-line": line, "cpu-index": vcpu})

    def console_socket(self, at: OwnSocket) -> AbstractContextManager[object]:
        """Return the context in which clients attach there; MachineError if it cannot be listened at."""
        # Most guests have none.
        from chronovisor.cli.console_place import console_socket

        return console_socket(self._console, at)

    def _reset(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.departure.no_move(), self._guest.holding:
            self._time_away.check_decided()
            self._guest.check_present()
            self._guest.platform.reboot(by_guest=False)
        return {}

    def _stop(self, request: dict[str, Any]) -> dict[str, Any]:
        with self.departure.no_move():
            self._time_away.check_decided()
            self._guest.stop(EndReason(request.get("reason", EndReason.STOPPED.value)))
        return {}

    def _migrate(self, request: dict[str, Any]) -> Any:
        if request["cancel"]:
            return {"cancelled": self.departure.cancel(self._moves.cancel)}
        if request["force_resume"]:
            self._moves.take_back(move := self.departure.force_resume())
            return {"resumed": move}
        if request["resolve"]:
            return self._moving(self.departure.resolve, None)
        # Most guests do not move.
        from chronovisor.cli.move_request import read_request

        return self._moving(lambda: self.departure.migrate(**read_request(request)), request.get("begun"))

    def _moving(
        self, move: Callable[[], MoveReport], begun: int | None
    ) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Make the move; `begun` is its number if it has begun already."""

        def followed() -> MoveReport:
            if begun is None and self._moves.begin() is None:
                raise MachineError(f"{self._guest.name} is on its way to another host: wait for that")
            return self._moves.follow(move)

        return _moving(self.departure, followed)


def _moving(
    departure: Departure, move: Callable[[], MoveReport]
) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Make the move on a thread of its own, so that it continues even if the client goes away."""
    # Not before a guest moves: its start need not wait for this.
    from concurrent.futures import ThreadPoolExecutor, wait

    executor = ThreadPoolExecutor(1, "move")
    going = executor.submit(move)
    executor.shutdown(wait=False)
    while not wait([going], _BETWEEN_PROGRESS).done:
        if (progress := departure.progress) is not None:
            yield progress.as_json()
    try:
        return {"report": going.result().as_json()}
    except MoveError as error:
        raise ControlError(str(error), FAILED) from error
    except MoveUndecidedError as error:
        raise ControlError(str(error), UNDECIDED) from error
