"""`chronovisor pause`: stop a running guest, and keep it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.machine.control import PATIENCE, ask


def command(
    name: GuestName,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Stop a running guest until `resume`. Its `run` stays; registers can be looked at, it can be saved."""
    answer = ask(name, "pause", PATIENCE)
    print(json.dumps(answer) if as_json else f"{name} is paused at guest timebase {answer['guest_tb']:#018x}")
