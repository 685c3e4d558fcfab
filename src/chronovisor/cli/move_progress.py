"""The progress of a move: on a terminal, or as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Hear: TypeAlias = Callable[[dict[str, Any]], None]
"""Takes a `migration.precopy.Progress` in JSON's types."""


@contextmanager
def as_lines() -> Iterator[Hear]:
    """Print each report of progress as a line of JSON: `{"progress": {…}}`."""
    yield lambda progress: print(json.dumps({"progress": progress}), flush=True)


@contextmanager
def shown(wanted: bool) -> Iterator[Hear]:
    """Show the progress on stderr, if it is `wanted` and stderr is a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("round {task.fields[round]}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[rate]} MB/s, {task.fields[left]} MiB left"),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("memory", total=None, round=0, rate=0, left="?")

        def hear(progress: dict[str, Any]) -> None:
            bar.update(
                task,
                completed=progress["sent_bytes"],
                total=progress["sent_bytes"] + progress["remaining_bytes"],
                round=progress["round"],
                rate=progress["rate"] // 1_000_000,
                left=progress["remaining_bytes"] >> 20,
            )

        yield hear
