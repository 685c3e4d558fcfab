"""The drift experiment: its table and picture, which docs/handover.md shows.

It runs in virtual time from fixed seeds, so it finds the same on every machine.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from chronovisor.report.drift import HOPS
from chronovisor.report.drift_picture import draw
from chronovisor.report.drift_table import all_courses, table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "handover.md"
PICTURE = DOCS / "drift.png"
BEGIN, END = "<!-- written by make bench: -->\n", "<!-- to here -->\n"


def page_with(text: str, written: str) -> str:
    """Return the page `text` with what was written between its marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + written + END + after


def show(console: Console) -> None:
    """Run the experiment, print its table and write both to docs/."""
    courses = all_courses(HOPS)
    written = table(courses)
    PAGE.write_text(page_with(PAGE.read_text(), written))
    draw(courses, PICTURE)
    console.print(f"The drift experiment: {HOPS} hops, in {PAGE.name} and {PICTURE.name}")
    console.print(written, markup=False, soft_wrap=True)
