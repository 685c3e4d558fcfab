"""What is in a trace, in Markdown, made from its declarations.

`python -m chronovisor.report.trace.reference docs/traces.md` renews the part of that file that is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chronovisor.report.trace import vocabulary as v

BEGIN: Final = (
    "<!-- From here on this page is made: python -m chronovisor.report.trace.reference docs/traces.md -->\n"
)
"""The line after which the made part of the page begins."""


def renewed(page: str) -> str:
    """Return the page with its made part made again; ValueError if it has none."""
    written, begin, _ = page.partition(BEGIN)
    if not begin:
        raise ValueError("the page has no part that is made")
    return written + begin + "\n" + "".join(f"{line}\n" for line in _lines())


def _lines() -> Iterator[str]:
    yield from ("## Rows", "", "| row | what it shows |", "| --- | --- |")
    for track in v.TRACKS:
        yield f"| {track.name} | {track.meaning} |"
    yield from ("", "## Counters", "", "| row | unit | what it shows |", "| --- | --- | --- |")
    for counter in v.COUNTERS:
        yield f"| {v.VCPU.name} {counter.name} | {counter.unit} | {counter.meaning} |"
    for title, events in (("Slices", v.SLICES), ("Instants", v.INSTANTS)):
        yield from ("", f"## {title}", "", "| name | row | inside | what it is | annotations |")
        yield "| --- | --- | --- | --- | --- |"
        for event in events:
            inside = ", ".join(f"`{name}`" for name in event.inside if name) or "–"
            if "" in event.inside and inside != "–":
                inside += ", or nothing"
            annotations = ", ".join(f"`{one.name}`" for one in event.annotations) or "–"
            yield f"| `{event.name}` | {event.track.name} | {inside} | {event.meaning} | {annotations} |"
    yield from ("", "## Annotations", "", "| name | what it says |", "| --- | --- |")
    known = dict.fromkeys(one for event in (*v.SLICES, *v.INSTANTS) for one in event.annotations)
    for one in known:
        yield f"| `{one.name}` | {one.meaning} |"


def _renew(path: Path) -> None:
    path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    _renew(Path(sys.argv[1]))
