"""`chronovisor top`: what the guests of this machine do, as a table that renews itself."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from chronovisor.cli.running import parse_seconds
from chronovisor.machine.control import ControlError, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import names
from chronovisor.timebase.types import Ticks

if TYPE_CHECKING:
    from rich.table import Table

_PATIENCE: Final = 5.0
"""Seconds that one guest's process may take to answer."""
_COLUMNS: Final = (
    "NAME",
    "STATE",
    "VCPUS",
    "INSTRUCTIONS",
    "MIPS",
    "EXITS",
    "EXITS/S",
    "MOST",
    "STEAL",
    "OFFSET",
    "CLOCK ERROR",
)
_WIDE: Final = 200
"""Columns of a table that no terminal shows."""
_TOLD: Final = 2
"""How many reasons of exits are named."""

_Seen = dict[str, tuple[float, dict[str, Any]]]
"""By guest: when it was looked at, and what it answered."""


def command(
    interval: Annotated[str, typer.Option(help="Seconds between two looks.", metavar="SECONDS")] = "1",
    once: Annotated[bool, typer.Option("--once", help="Print the table once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer once, with one JSON array.")] = False,
) -> None:
    """Show each guest's instructions, its exits to user space and their most frequent reasons, the part of
    the time for which its vCPUs waited for a core (STEAL), its timebase offset, and its clock's error since
    its birth. Ctrl-C ends it.

    Each look pauses a guest for a moment. Instructions are unknown (-) under the kernel's KVM. If the output
    is no terminal, the table is printed once.
    """
    pause = parse_seconds(interval, "interval") or 1.0
    seen = _look()
    if as_json:
        print(json.dumps([answer for _, answer in seen.values()], indent=2))
        return
    # The libraries for tables take a moment to load.
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    if once or not sys.stdout.isatty():
        console.print(_table({}, seen))
        return
    try:
        with Live(_table({}, seen), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(pause)
                before, seen = seen, _look()
                live.update(_table(before, seen), refresh=True)
    except KeyboardInterrupt:
        return


def _look() -> _Seen:
    seen: _Seen = {}
    for name in names():
        try:
            answer = ask(name, "top", _PATIENCE)
        except (MachineError, ControlError):
            # It has just ended, has no guest yet, or does not answer.
            continue
        if answer["name"] == name:
            seen[name] = time.monotonic(), answer
    return seen


def _table(before: _Seen, now: _Seen) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("NAME", "STATE", "MOST") else "right")
    for name, (when, answer) in now.items():
        table.add_row(*_row(before.get(name), when, answer))
    return table


def _row(before: tuple[float, dict[str, Any]] | None, when: float, answer: dict[str, Any]) -> tuple[str, ...]:
    executed, exits = answer["instructions"], answer["exits"]
    earlier = {} if before is None else before[1]["exits"]
    since = {reason: count - earlier.get(reason, 0) for reason, count in exits.items()}
    most = sorted((count, reason) for reason, count in since.items() if count)[: -_TOLD - 1 : -1]
    mips = rate = steal = "-"
    if before is not None:
        elapsed = when - before[0]
        rate = f"{sum(since.values()) / elapsed:,.0f}"
        if executed is not None and before[1]["instructions"] is not None:
            mips = f"{(executed['total'] - before[1]['instructions']['total']) / elapsed / 1e6:,.1f}"
        if None not in (answer["stolen_ticks"], before[1]["stolen_ticks"]):
            waited = Ticks(answer["stolen_ticks"] - before[1]["stolen_ticks"])
            steal = f"{100 * waited.ns / 1e9 / elapsed / answer['vcpus']:.0f} %"
    offset, error = answer["tb_offset"], Ticks(answer["clock_error_ticks"])
    return (
        *(answer["name"], answer["state"], str(answer["vcpus"])),
        "-" if executed is None else f"{executed['total']:,}",
        mips,
        f"{sum(exits.values()):,}",
        rate,
        " ".join(reason for _, reason in most),
        steal,
        "-" if offset is None else f"{offset:#x}",
        f"{error.ns / 1e6:+.3f} ms",
    )
