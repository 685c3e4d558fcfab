"""The argument that names a guest which runs here, and what a shell completes it to."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import names


def running_guests(incomplete: str) -> list[str]:
    """Return the names of the guests here that begin so; none if they cannot be listed."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except MachineError:
        return []


GuestName: TypeAlias = Annotated[
    str, typer.Argument(help="The guest, as `ps` lists it.", autocompletion=running_guests)
]
