"""`chronovisor report`: what traces say, in numbers and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chronovisor.cli.output import show
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import FileError, open_regular

if TYPE_CHECKING:
    from chronovisor.report.trace.reading import Track
    from chronovisor.report.trace.summary import Summary

_LARGEST: Final = 1 << 30
"""Bytes: no trace that was written here is larger."""


def command(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Traces that `--trace` wrote on one machine: of a move, both ends.", metavar="FILE…"
        ),
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Draw a picture there: PNG, or SVG.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Say what traces have: where each vCPU's time went, exits and hypercalls by reason, moves.

    The picture shows guest time against host time, stays on cores, and exits by reason.
    """
    if picture is not None and not picture.resolve().parent.is_dir():
        raise MachineError(f"the picture cannot be written to {picture}: there is no such directory")
    from chronovisor.report.trace.summary import summarise
    from chronovisor.report.trace.table import lines

    summary = summarise([_read(path) for path in files])
    if as_json:
        print(json.dumps(summary.as_json(), indent=2))
    else:
        for line in lines(summary):
            show(line)
    if picture is not None:
        _draw(summary, picture)
    return ExitStatus.OK


def _read(path: Path) -> list[Track]:
    try:
        from chronovisor.report.trace.reading import TraceFormatError, read_trace
    except ModuleNotFoundError:
        raise MachineError(
            "the package perfetto is not installed: pip install 'chronovisor[traces]'"
        ) from None
    try:
        with open_regular(path) as file:
            if path.stat().st_size > _LARGEST:
                raise FileError(f"a trace has at most {_LARGEST} bytes")
            return read_trace(file)
    except (FileError, TraceFormatError, OSError) as error:
        raise MachineError(f"{path}: {error}") from None


def _draw(summary: Summary, path: Path) -> None:
    try:
        from chronovisor.report.trace.picture import draw

        draw(summary, path)
    except ModuleNotFoundError as error:
        raise MachineError(f"no picture: the package {error.name} is not installed") from None
    except (OSError, ValueError) as error:
        raise MachineError(f"the picture cannot be written to {path}: {error}") from None
