"""Figures of a guest that runs here and in QEMU in turns, and their table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

Run = Callable[[], dict[str, float]]
"""Runs the guest once: figures by their names, those that there are."""


@dataclass(frozen=True)
class Pair:
    """The medians of one figure, here and in QEMU."""

    name: str
    ours: float
    theirs: float | None
    """None if QEMU has no such figure."""

    @property
    def ratio(self) -> float | None:
        """Ours over QEMU's."""
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def inverse(self) -> float | None:
        """QEMU's over ours."""
        return None if self.theirs is None else self.theirs / self.ours


def in_turns(here: Run, in_qemu: Run, runs: int) -> list[Pair]:
    """Run the guest so many times on both sides."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(runs):
        ours.append(here())
        theirs.append(in_qemu())
    return [
        Pair(
            name,
            statistics.median(run[name] for run in ours),
            statistics.median(run[name] for run in theirs) if all(name in run for run in theirs) else None,
        )
        for name in ours[0]
    ]


def table(title: str, rows: Sequence[tuple[Pair, float | None]], digits: int) -> Table:
    """A table of pairs with their ratios; figures with so many digits behind the point."""
    made = Table(title=title, title_justify="left")
    for column in ("work", "chronovisor", "QEMU TCG", "ratio"):
        made.add_column(column, justify="left" if column == "work" else "right")
    for pair, ratio in rows:
        figures = [pair.ours, pair.theirs]
        shown = ["–" if figure is None else f"{figure:,.{digits}f}" for figure in figures]
        made.add_row(pair.name, *shown, "–" if ratio is None else f"{ratio:.2f}")
    return made
