"""How a guest ended: what the user is told, and the command's status."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any, Final

from chronovisor.cli.output import say
from chronovisor.cli.statistics import tell_statistics
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.guest import Guest

STATUSES: Final = {
    EndReason.POWER_OFF: ExitStatus.OK,
    EndReason.MOVED: ExitStatus.OK,
    EndReason.REBOOT: ExitStatus.REBOOT,
    EndReason.RESET: ExitStatus.REBOOT,
    EndReason.PANIC: ExitStatus.PANIC,
    EndReason.CRASH: ExitStatus.CRASH,
    EndReason.TIMED_OUT: ExitStatus.TIMED_OUT,
    EndReason.STOPPED: ExitStatus.ENDED,
    # As QEMU ends.
    EndReason.QUIT: ExitStatus.OK,
    EndReason.OUTPUT_LOST: ExitStatus.FAILED,
    EndReason.INTERNAL_ERROR: ExitStatus.INTERNAL_ERROR,
}


@dataclass(frozen=True)
class EndReport:
    """What the user is told of a guest that ended: its statistics, if `guest` is given, and how it ended."""

    end: GuestEnd
    guest: Guest | None = None

    @property
    def status(self) -> ExitStatus:
        """The command's status."""
        return STATUSES[self.end.reason]

    def say(self, as_json: bool = False) -> ExitStatus:
        """Say it on stderr; return the command's status. That the guest powered off is not said.

        `as_json` says how it ended in any case, as one object: `reason`, `message`, `status`.
        """
        if self.guest is not None:
            tell_statistics(self.guest.statistics(), as_json)
        if self.end.details:
            print(self.end.details, file=sys.stderr, end="")
        return tell_end_as(end_as_json(self.end), as_json)


def end_as_json(end: GuestEnd) -> dict[str, Any]:
    """How a guest ended, as JSON says it: `reason`, `message`, and the `status` of the command."""
    return {"reason": end.reason.value, "message": end.message, "status": int(STATUSES[end.reason])}


def tell_end_as(end: dict[str, Any], as_json: bool) -> ExitStatus:
    """Say how a guest ended, as another process told it, as `EndReport.say` does."""
    if as_json:
        print(json.dumps(end), file=sys.stderr, flush=True)
    elif end["reason"] != EndReason.POWER_OFF.value:
        say(end["message"])
    return ExitStatus(end["status"])


def ended_by(error: BaseException) -> dict[str, Any]:
    """Say as `end_as_json` how a guest's run ends by this: by a signal, or by a mistake of ours."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        status = error.code if isinstance(error, SystemExit) else ExitStatus.INTERRUPTED
        return {"reason": EndReason.STOPPED.value, "message": "the guest was stopped", "status": status}
    return end_as_json(GuestEnd(EndReason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
