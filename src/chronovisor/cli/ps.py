"""`chronovisor ps`: the guests that run on this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from chronovisor.machine.control import ControlError, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import names
from chronovisor.report.columns import aligned

_PATIENCE = 5.0
"""Seconds that one guest's process may take to answer."""
_COLUMNS = ("NAME", "PID", "STATE", "VCPUS", "MEMORY", "HOST TIMEBASE", "GUEST TIMEBASE", "OFFSET")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON array.")] = False,
) -> None:
    """List the guests that run on this machine: their state, host and guest timebase, and offset.

    A guest is running, moving, paused, or undecided (a move's outcome is unknown, and it is paused); a
    `receive` without a guest is waiting, a `restore` that has none yet restoring. A paused guest's timebase
    is the one at which it was stopped.
    """
    guests = [found for name in names() if (found := _look(name)) is not None]
    if as_json:
        print(json.dumps(guests, indent=2))
        return
    for line in aligned([_COLUMNS, *(_row(guest) for guest in guests)]):
        print(line)


def _look(name: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = ask(name, "ps", timeout=_PATIENCE)
    except (MachineError, ControlError):
        # It ended just now, or does not answer.
        return {"name": name, "state": "silent"} if name in names() else None
    # A guest that came from another process here is answered for under two names. It has one of them.
    return answer if answer["name"] == name else None


def _row(guest: dict[str, Any]) -> tuple[str, ...]:
    def shown(key: str, form: str = "") -> str:
        value = guest.get(key)
        return "-" if value is None else format(value, form)

    times = [shown(key, "#018x") for key in ("host_tb", "guest_tb", "tb_offset")]
    memory = guest.get("memory")
    size = "-" if memory is None else f"{memory >> 20}M"
    return (shown("name"), shown("pid"), shown("state"), shown("vcpus"), size, *times)
