"""What a running guest's process answers to `pause`, `resume`, `snapshot`, `dump` and `history`.

What only some of them need is imported when they are asked for: `run` starts without it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from chronovisor.cli.dump_status import DumpStatus
from chronovisor.machine.control import FAILED, ControlError, RequestHandler
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.migration.departure import Departure
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import GuestTime, Ticks


class TimeAway:
    """Pauses, saves and resumes one guest; never while it moves, nor while a move's outcome is unknown."""

    def __init__(self, guest: Guest, departure: Departure, dumps: DumpStatus) -> None:
        self._guest = guest
        self._departure = departure
        self._dumps = dumps
        self._debugged = False
        """Whether a debugger keeps the guest stopped."""
        self.handlers: dict[str, RequestHandler] = {
            "pause": self._pause,
            "resume": self._resume,
            "snapshot": self._snapshot,
            "history": self._history,
            "dump": self._dump,
        }

    @property
    def guest_time(self) -> int:
        """The guest's timebase now, or at which it was paused."""
        stopped = self.stopped_time
        return (self._guest.timebase() if stopped is None else stopped).value

    @property
    def stopped_time(self) -> GuestTime | None:
        """The guest's time at which it was paused; None if it is not paused."""
        paused = self._departure.paused
        return None if paused is None else paused.guest_time

    def stop(self) -> None:
        """Stop the guest for a debugger, or keep it stopped; `resume` is the debugger's until `go_on`.

        MachineError if it moves, or if it is not known whether it runs elsewhere.
        """
        from chronovisor.migration.pause import Pause

        with self._departure.no_move():
            self.check_decided()
            self._debugged = True
            if self._departure.paused is None:
                self._departure.paused = Pause(self._guest, goes_on=True)

    def go_on(self, policy: TimePolicy) -> None:
        """Let the guest go on for a debugger, its time as the policy says. Virtual time stood still."""
        with self._departure.no_move():
            self.check_decided()
            paused = self._departure.paused
            if self._guest.end is None:
                if paused is None or self._guest.system.clock.source.is_virtual:
                    self._guest.resume()
                else:
                    paused.resume(policy)
            self._departure.paused, self._debugged = None, False

    def step_on(self) -> None:
        """Let the guest go on that a debugger's step has stopped, unless it was paused meanwhile."""
        with self._departure.no_move():
            self.check_decided()
            if self._departure.paused is None and self._guest.end is None:
                self._guest.resume()

    def _pause(self, request: dict[str, Any]) -> dict[str, Any]:
        from chronovisor.migration.pause import Pause

        with self._departure.no_move():
            self.check_decided()
            if self._departure.paused is not None:
                raise MachineError(f"{self._guest.name} is paused already")
            if not self._guest.running:
                raise MachineError(f"{self._guest.name} does not run, so it cannot be paused")
            paused = self._departure.paused = Pause(self._guest)
            return {"guest_tb": paused.guest_time.value}

    def _resume(self, request: dict[str, Any]) -> dict[str, Any]:
        policy, limit = TimePolicy.parse(request["time"]), Ticks(request["limit"])
        with self._departure.no_move():
            self.check_decided()
            if self._departure.paused is None:
                raise MachineError(f"{self._guest.name} is not paused")
            if self._debugged:
                raise MachineError(f"{self._guest.name} was stopped by a debugger: continue it there")
            hop = self._departure.paused.resume(policy, limit)
            self._departure.paused = None
        return hop.as_json()

    def _snapshot(self, request: dict[str, Any]) -> dict[str, Any]:
        from chronovisor.migration.snapshot import NotSavedError, snapshot

        began = time.monotonic_ns()
        with self._departure.no_move():
            self.check_decided()
            self._guest.check_present()
            try:
                saved = snapshot(self._guest, request["path"], self._departure.paused)
            except NotSavedError as error:
                raise ControlError(str(error), FAILED) from error
        header = saved.header
        return {
            "path": request["path"],
            "size": saved.size,
            "memory": header.memory_size,
            "in_use": header.in_use,
            "guest_tb": header.guest_time.value,
            "stopped_ns": saved.stopped.ns,
            "duration_ns": time.monotonic_ns() - began,
        }

    def _dump(self, request: dict[str, Any]) -> dict[str, Any]:
        from chronovisor.machine.debugger.core_dump import write_core
        from chronovisor.migration.whole_file import replacing

        path = request["path"]
        with self._departure.no_move():
            self.check_decided()
            began = time.monotonic_ns()
            running = self._guest.running
            try:
                with (
                    replacing(Path(path)) as file,
                    self._guest.held(),
                    self._dumps.writing(self._guest.memory.size, running),
                ):
                    write_core(self._guest, file)
                    stopped = time.monotonic_ns() - began
            except OSError as error:
                reason = error.strerror or str(error)
                raise ControlError(f"{path}: the dump could not be written: {reason}", FAILED) from None
        return {"path": path, "memory": self._guest.memory.size, "stopped_ns": stopped}

    def _history(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._guest.history.as_json()

    def check_decided(self) -> None:
        """Raise MachineError if it is not known whether the guest runs elsewhere."""
        if self._departure.state == "undecided":
            raise MachineError(
                f"{self._guest.name} is paused, as the outcome of its move is unknown: "
                "ask again with `migrate --resolve`, or take it back with `migrate --force-resume`"
            )
