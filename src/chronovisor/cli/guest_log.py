"""`run --log`: the file or the standard error to which calls that a guest makes in vain are logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from chronovisor.machine.bounded_log import BoundedLog
from chronovisor.machine.guest_log import MEANINGS, GuestLog, LogItem

LogItems: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Log what the guest asks for in vain: "
        + "; ".join(f"{item.value} ({meaning})" for item, meaning in MEANINGS.items())
        + ".",
        metavar="ITEM[,ITEM]",
    ),
]
LogFile: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Where --log goes instead of the standard error. The file holds the newest 16 MiB.",
        metavar="FILE",
    ),
]
_SIZE: Final = 16 << 20


@contextmanager
def guest_log(items: frozenset[LogItem], path: str) -> Iterator[GuestLog | None]:
    """Open the log, or yield None without items. `%d` in the path is this process's id, as under QEMU.

    MachineError if the file cannot be opened.
    """
    if not items:
        yield None
    elif not path:
        yield GuestLog(items, _to_stderr)
    else:
        with closing(BoundedLog(Path(path.replace("%d", str(os.getpid()))), _SIZE)) as log:
            yield GuestLog(items, log.write)


def _to_stderr(line: bytes) -> None:
    sys.stderr.write(line.decode())
    sys.stderr.flush()
