"""`chronovisor snapshot`: save a running or paused guest in a file."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.machine.control import ask


def command(
    name: GuestName,
    file: Annotated[str, typer.Argument(help="The file to save it in; an existing file is replaced.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Save a guest in a file: memory that is not all zeros, registers, its clock and its history.

    The guest is stopped while it is written and goes on afterwards, unless it was paused. A file that is
    there already is replaced once the new one is whole and on the disk: a full disk or a kill leaves it as it
    was.
    """
    answer = ask(name, "snapshot", path=os.path.abspath(file))
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    print(
        f"{name} is saved in {file}: {answer['size']} bytes, {answer['in_use'] >> 10} KiB of its "
        f"{answer['memory'] >> 20} MiB in use; it was stopped for {answer['stopped_ns'] / 1e6:.1f} ms"
    )
