"""`chronovisor wait`: wait for a guest's end, with the status that `run` would have."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from chronovisor.cli.guest_end import tell_end_as
from chronovisor.cli.guest_name import running_guests
from chronovisor.cli.output import say
from chronovisor.cli.running import parse_seconds
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.control import NotRunningError, ProcessEndedError, ask
from chronovisor.machine.guest_records import GuestRecord

_SILENT: Final = 10.0
"""Seconds without a sign of life from the guest's process: it gives one each second."""


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="The guest, as `ps` lists it, or one that was in the background.",
            autocompletion=running_guests,
        ),
    ],
    timeout: Annotated[
        str, typer.Option(help="Seconds to wait; then the status is 124, and the guest goes on.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Say how the guest ended as one JSON object, on stderr.")
    ] = False,
) -> int:
    """Wait until a guest ends, say how it ended, and end with the status with which its `run` ends.

    A guest that was started with --detach can have ended already: how is kept until a guest of the same name
    starts, for the last 64 guests. A killed process cannot say how its guest ended: the status is 137 then.
    """
    seconds = parse_seconds(timeout)
    try:
        end: dict[str, Any] = ask(name, "wait", _SILENT, within=seconds)
    except ProcessEndedError:
        # It may have been killed when its guest had ended already.
        end = GuestRecord(name).end or _killed(name)
    except NotRunningError:
        record = GuestRecord(name)
        if not record.exists:
            raise
        end = record.end or _killed(name)
    if end.get("reason") is None:
        say(f"{name} still runs after {seconds:g} s")
        return ExitStatus.TIMED_OUT
    return tell_end_as(end, as_json)


def _killed(name: str) -> dict[str, Any]:
    return {"reason": "killed", "message": f"the process of {name} was killed", "status": ExitStatus.KILLED}
