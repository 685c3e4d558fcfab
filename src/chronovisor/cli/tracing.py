"""`--trace FILE`: what `run`, `receive` and `restore` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from chronovisor.cli.output import say
from chronovisor.machine.errors import MachineError
from chronovisor.migration.tracing import UNTRACED, MoveTrace
from chronovisor.timebase.clock import TickSource

if TYPE_CHECKING:
    from chronovisor.machine.guest import Guest
    from chronovisor.report.trace.file import TraceFile

Trace: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Write a trace there that ui.perfetto.dev opens: runs, exits, hypercalls, moves.", metavar="FILE"
    ),
]


@contextmanager
def tracing(path: str, source: TickSource) -> Iterator[TraceFile | None]:
    """Write a trace to `path` while the block lasts; none for an empty path.

    MachineError if it cannot be written.
    """
    if not path:
        yield None
        return
    from chronovisor.report.trace.file import NoPerfettoError, TraceFile

    def lost(error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) else repr(error)
        say(f"the trace {path} ends here: {why}")

    try:
        trace = TraceFile(Path(path), source, lost)
    except NoPerfettoError as error:
        raise MachineError(f"--trace: {error}") from None
    except OSError as error:
        raise MachineError(f"the trace cannot be written to {path}: {error.strerror or error}") from None
    try:
        yield trace
    finally:
        trace.close()


def traced_by(trace: TraceFile | None, guest: Guest, name: str) -> MoveTrace:
    """Tell the trace what the guest does from now on, under this name; return what is told of its moves."""
    if trace is None:
        return UNTRACED
    guest.trace(trace.guest(guest.system.clock, name))
    return trace.moves
