"""The options of commands that say what devices a guest has."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Disk: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="A disk, once for each: a file with its contents. With ro the guest may only read it.",
        metavar="FILE[,ro][,format=raw|qcow2]",
    ),
]
Net: TypeAlias = Annotated[
    str,
    typer.Option(
        help="The guest's network: passt (this machine's, without privileges), or a tap device.",
        metavar="passt[,tcp=PORT:PORT]|tap=NAME|none[,mac=ADDRESS]",
    ),
]
