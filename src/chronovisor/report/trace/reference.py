"""What is in a trace, in Markdown, made from its declarations for docs/traces.md."""

from __future__ import annotations

from collections.abc import Iterator

from chronovisor.report.trace import vocabulary as v


def lines() -> Iterator[str]:
    """Return the lines of the reference."""
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
