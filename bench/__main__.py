"""`make bench`: the figures, as tables. `make bench ARGS=devices` measures some alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import (
    campaigns,
    debian_build,
    devices,
    drift,
    exit_parts,
    guest_speed,
    linux_boot,
    linux_work,
    live_moves,
    moves,
    parallel,
    processors,
    start_up,
    switch,
    traces,
)


def _guest_speed(console: Console) -> None:
    speeds = guest_speed.measure()
    title = f"A guest's loops: ns a round, medians of {guest_speed.RUNS} (ratio: QEMU's time over ours)"
    table = Table(title=title, title_justify="left")
    for column in ("loop", "chronovisor", "QEMU TCG", "ratio"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for speed in speeds:
        theirs = f"{speed.qemu_ns:,.1f}" if speed.qemu_ns is not None else "–"
        ratio = f"{speed.ratio:.3f}" if speed.ratio is not None else "–"
        table.add_row(speed.name, f"{speed.ours_ns:,.1f}", theirs, ratio)
    console.print(table)
    for programs in (guest_speed.FIXED_POINT, guest_speed.FLOATING_POINT):
        for how, end in (("real mode", ""), ("translated", guest_speed.TRANSLATED)):
            mean = guest_speed.mean_ratio(speeds, [name + end for name in programs])
            if mean is not None:
                console.print(f"geometric mean of {', '.join(programs)}, {how}: {mean:.3f}")
    scaling = guest_speed.scaling(speeds)
    if scaling is not None:
        console.print(
            f"two vCPUs get {scaling:.2f} times done what one does "
            f"(two processes of this machine at that time: {processors.scaling():.2f})"
        )


def _start_up(console: Console) -> None:
    found = start_up.measure()
    table = Table(title="`chronovisor run` to the guest's first words", title_justify="left")
    for column in ("start", "seconds", f"peak MiB, {start_up.GUEST_MIB} of them the guest's"):
        table.add_column(column, justify="left" if column == "start" else "right")
    table.add_row("first on a machine", f"{found.first_s:.2f}", f"{found.first_mib:.0f}")
    table.add_row(f"later (median of {start_up.LATER})", f"{found.later_s:.2f}", f"{found.later_mib:.0f}")
    console.print(table)


FIGURES: Final[dict[str, Callable[[Console], None]]] = {
    "start-up": _start_up,
    "guest-speed": _guest_speed,
    "linux-boot": linux_boot.show,
    "linux-work": linux_work.show,
    "debian-build": debian_build.show,
    "devices": devices.show,
    "parallel": parallel.show,
    "switch": switch.show,
    "exits": exit_parts.show,
    "traces": traces.show,
    "moves": moves.show,
    "live-moves": live_moves.show,
    "drift": drift.show,
    "campaigns": campaigns.show,
}


def main(names: Sequence[str]) -> None:
    """Measure and print what is named, or everything."""
    if unknown := [name for name in names if name not in FIGURES]:
        sys.exit(f"bench: {unknown[0]!r} is not one of {', '.join(FIGURES)}")
    console = Console()
    for name in names or FIGURES:
        FIGURES[name](console)


main(sys.argv[1:])
