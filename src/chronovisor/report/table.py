"""The table of a journey, one row per move."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from chronovisor.report.hops import Hop
from chronovisor.timebase.types import FREQUENCY, GRANULE, Ticks

_MS = 1000 / FREQUENCY


def milliseconds(ticks: int, sign: bool = False) -> str:
    """Return a duration in ticks as milliseconds with three decimals, with its sign even where positive."""
    shown = f"{ticks * _MS:{'+' if sign else ''}z.3f}"
    return shown.lstrip("+") if not float(shown) else shown


def years(ticks: int) -> str:
    """Return a timebase value or a difference of two in years of 365.25 days."""
    return f"{Ticks(ticks).seconds / (365.25 * 86_400):.2f} y"


def move_table(hops: Sequence[Hop]) -> Table:
    """Return the table of moves; all durations in milliseconds."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("", justify="right")
    table.add_column("move")
    for heading in ("elapsed", "guest's\nadvance", "error", "bound\n±", "rounding\nso far", "of it\nwaited"):
        table.add_column(heading, justify="right")
    table.add_column("phase", justify="right")
    for number, hop in enumerate(hops, 1):
        record = hop.record
        phase = (record.to_origin - record.from_origin) % GRANULE
        table.add_row(
            str(number),
            f"{hop.from_host} → {hop.to_host}",
            milliseconds(record.elapsed_ticks),
            milliseconds(record.advance.value),
            milliseconds(record.error_ticks, sign=True),
            milliseconds(record.error_bound_ticks),
            milliseconds(record.rounding_ticks, sign=True),
            milliseconds(Ticks.from_ns(record.wait_ns).value) if record.wait_ns else "–",
            milliseconds(phase) if phase else "in phase",
        )
    return table
