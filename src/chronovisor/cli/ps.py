"""`chronovisor ps`: the guests that run on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from chronovisor.cli.output import terminal_width
from chronovisor.machine.control import ControlError, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import names
from chronovisor.report.columns import fitting

_PATIENCE = 5.0
"""Seconds that one guest's process may take to answer."""
_COLUMNS = ("NAME", "PID", "STATE", "VCPUS", "MEMORY", "HOST TIMEBASE", "GUEST TIMEBASE", "OFFSET")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON array.")] = False,
) -> None:
    """List the guests that run on this machine: their state, host and guest timebase, and offset.

    A guest is running, moving, paused, or undecided (the outcome of its move is unknown, and it is paused). A
    `receive` without a guest is waiting; a `restore` that still reads its file is restoring. A paused guest's
    timebase is the one at which it was stopped.
    """
    guests = [found for name in names() if (found := _look(name)) is not None]
    if as_json:
        print(json.dumps(guests, indent=2))
        return
    for line in fitting([_COLUMNS, *(_row(guest) for guest in guests)], terminal_width()):
        print(line)


def _look(name: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = ask(name, "ps", timeout=_PATIENCE)
    except (MachineError, ControlError):
        # The guest has just ended, or its process does not answer.
        return {"name": name, "state": "silent"} if name in names() else None
    # The process of a guest that came here by a move can answer under two names. The guest has one of them.
    return answer if answer["name"] == name else None


def _row(guest: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: str = "") -> str:
        value = guest.get(key)
        return "-" if value is None else format(value, form)

    times = [shown(key, "#018x") for key in ("host_tb", "guest_tb", "tb_offset")]
    memory = guest.get("memory")
    size = "-" if memory is None else f"{memory >> 20}M"
    return (shown("name"), shown("pid"), shown("state"), shown("vcpus"), size, *times)
