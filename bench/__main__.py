"""`make bench`: the figures, as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from bench import guest_speed


def main() -> None:
    """Measure and print."""
    speeds = guest_speed.measure()
    table = Table(title="A guest's loops: ns a round (ratio: QEMU's time over ours)", title_justify="left")
    for column in ("loop", "chronovisor", "QEMU TCG", "ratio"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for speed in speeds:
        theirs = f"{speed.qemu_ns:,.1f}" if speed.qemu_ns is not None else "–"
        ratio = f"{speed.ratio:.3f}" if speed.ratio is not None else "–"
        table.add_row(speed.name, f"{speed.ours_ns:,.1f}", theirs, ratio)
    console = Console()
    console.print(table)
    mean = guest_speed.mean_ratio(speeds)
    if mean is not None:
        console.print(f"geometric mean of {', '.join(guest_speed.LOOPS)}: {mean:.3f}")


main()
