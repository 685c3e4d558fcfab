"""What traces say, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from chronovisor.report.columns import aligned
from chronovisor.report.trace.summary import PARTS, Summary, Vcpu

_MS = 1_000_000


def lines(summary: Summary) -> Iterator[str]:
    """Return the lines."""
    if not summary.vcpus:
        yield "no vCPU did anything"
        return
    rows = [("VCPU", "TIME", *(part.upper() for part in PARTS), "STOLEN")]
    rows += [_times(vcpu, summary) for vcpu in summary.vcpus]
    yield from aligned(rows, right=range(1, len(rows[0])))
    for vcpu in summary.vcpus:
        yield from ("", f"{summary.name(vcpu)}:")
        exits = [("EXIT OR HYPERCALL", "COUNT", "OF THEM ONLY COUNTED", "MEAN µs")]
        for reason, one in vcpu.exits.items():
            mean = "–" if one.mean_ns is None else f"{one.mean_ns / 1000:.1f}"
            exits.append((reason, f"{one.all:,}", f"{one.counted:,}", mean))
        exits += [(name, f"{count:,}", "", "") for name, count in vcpu.interrupts.items()]
        exits += [(name, f"{count:,}", "", "") for name, count in vcpu.work.items()]
        yield from aligned(exits, right=(1, 2, 3))
    for move in summary.moves:
        downtime = move.downtime
        stopped = "" if downtime is None else f", {(downtime[1] - downtime[0]) / _MS:.1f} ms of it stopped"
        rounds = f", {len(move.rounds)} rounds" if move.rounds else ""
        took = (move.end - move.begin) / _MS
        yield f"move {move.where}: {move.outcome} after {took:.1f} ms{stopped}{rounds}"


def _times(vcpu: Vcpu, summary: Summary) -> tuple[str, ...]:
    length = vcpu.end - vcpu.begin
    shares = (f"{vcpu.spent[part] / length:.1%}" if length else "–" for part in PARTS)
    return summary.name(vcpu), f"{length / 1e9:.3f} s", *shares, f"{vcpu.stolen / _MS:.1f} ms"
