"""How a guest ended: what the user is told, and the command's status."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from chronovisor.cli.output import say
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.ending import EndReason, GuestEnd

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


def tell_end(end: GuestEnd, as_json: bool = False) -> ExitStatus:
    """Say on stderr how the guest ended, unless it powered off; return the command's status.

    `as_json` says it in any case, as one object: `reason`, `message`, `status`.
    """
    if end.details:
        print(end.details, file=sys.stderr, end="")
    return tell_end_as(end_as_json(end), as_json)


def end_as_json(end: GuestEnd) -> dict[str, Any]:
    """How a guest ended, as JSON says it: `reason`, `message`, and the `status` of the command."""
    return {"reason": end.reason.value, "message": end.message, "status": int(STATUSES[end.reason])}


def tell_end_as(end: dict[str, Any], as_json: bool) -> ExitStatus:
    """Do the same as `tell_end` for an end that was told by another process."""
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
