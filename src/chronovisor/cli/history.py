"""`chronovisor history`: the life of a guest's clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chronovisor.cli.guest_name import running_guests
from chronovisor.cli.hop_record import life
from chronovisor.machine.control import PATIENCE, ask
from chronovisor.machine.run_directory import names


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="The guest, as `ps` lists it, or a snapshot's FILE.", autocompletion=running_guests
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Show a guest's whole life: each move, restore, resume and setting of its offset, what that did to its
    clock, and its clock's error since its birth with the interval that it surely lies in.

    After many hops the oldest are folded into their number and sums.
    """
    history = _of(name)
    print(json.dumps(history, indent=2) if as_json else life(history))


def _of(name: str) -> dict[str, Any]:
    if name not in names() and Path(name).exists():
        from chronovisor.migration.snapshot_restore import inspect

        return inspect(name).machine.history.as_json()
    answer: dict[str, Any] = ask(name, "history", PATIENCE)
    return answer
