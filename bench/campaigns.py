"""What a campaign costs beside its tasks, how it scales, and how fast the simulated fleet moves.

`python -m bench.campaigns` measures it alone. It says something on a quiet machine only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from chronovisor.campaigns.fleet.campaign import CAMPAIGN, CELLS


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    overhead: float
    """What one worker's time has besides its tasks, as a part of the tasks' time."""
    task_s: float
    """A task's mean time, on one worker."""
    scaling: float
    """How many times faster two workers are."""
    moves_per_s: float
    """Simulated moves in a second of a processor's time, each under all rules."""


def _report(workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "chronovisor", "campaign", "fleet", "--json", "--seed", "1"]
        command += ["--workers", str(workers), "--results", scratch]
        told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        return told


def measure() -> Figures:
    """Run a task here, and the whole fleet on one worker, and then on two."""
    begun = time.process_time()
    task = CAMPAIGN.perform(1, CAMPAIGN.parameters, [0, CELLS])
    seconds = time.process_time() - begun
    one, two = _report(1), _report(2)
    return Figures(
        overhead=one["seconds"] / one["task_seconds"] - 1,
        task_s=one["task_seconds"] / one["tasks"],
        scaling=one["seconds"] / two["seconds"],
        moves_per_s=task.done / seconds,
    )


def show(console: Console) -> None:
    """Measure and print."""
    found = measure()
    table = Table(title="`chronovisor campaign fleet`", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_row(f"besides the tasks ({found.task_s:.1f} s each), on one worker", f"{found.overhead:.2%}")
    table.add_row("two workers against one", f"{found.scaling:.2f} times")
    table.add_row("simulated moves a second of a processor", f"{found.moves_per_s:,.0f}")
    console.print(table)


if __name__ == "__main__":
    show(Console())
