"""`chronovisor stop`: end a running guest."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.cli.ending import process_of, wait_for_end
from chronovisor.cli.guest_name import GuestName
from chronovisor.machine.control import ask


def command(
    name: GuestName,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """End a guest between two instructions, and its `run` in an orderly way: with status 143.

    The guest is not asked; what it holds in memory is lost. `snapshot` saves a guest first. A guest that
    moves, or whose move is undecided, is not stopped: cancel or resolve the move first.
    """
    with process_of(name) as process:
        ask(name, "stop")
        wait_for_end(name, process)
    print(json.dumps({"stopped": name}) if as_json else f"{name} was stopped")
