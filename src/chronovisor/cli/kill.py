"""`chronovisor kill`: end a guest's process at once."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import Annotated, Final

import typer

from chronovisor.cli.ending import process_of, wait_for_end
from chronovisor.cli.guest_name import GuestName
from chronovisor.machine.control import ControlError, ask
from chronovisor.machine.errors import MachineError

_PATIENCE: Final = 2.0
"""Seconds that the process may take to end itself, before it is killed by SIGKILL."""


def command(
    name: GuestName,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """End a guest's process at once, whatever the guest or a move is doing. The process ends with status 137.

    The process restores its terminal. If it does not answer in two seconds, it is killed by SIGKILL.
    """
    with process_of(name) as process:
        with contextlib.suppress(MachineError, ControlError):
            ask(name, "kill", timeout=_PATIENCE)
            wait_for_end(name, process, _PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        wait_for_end(name, process)
    print(json.dumps({"killed": name}) if as_json else f"{name} was killed")
