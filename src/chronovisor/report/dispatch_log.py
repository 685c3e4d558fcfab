"""A dispatch trace log for people (a table) and for programs (CSV, JSON)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from chronovisor.papr.dispatch_log import DispatchLog, reason_name, ticks_since
from chronovisor.papr.vpa import DispatchLogEntry, DispatchReason, PreemptReason
from chronovisor.report.columns import aligned

_HEADINGS: Final = (
    (
        *("entry", "timebase", "since first", "waiting", "ready", "enqueued", "processor"),
        *("dispatched by", "preempted by", "goes on at"),
    ),
    ("", "ticks", "µs", "µs", "µs", "µs", "", "", "", ""),
)
_NUMBERS: Final = range(7)
"""The columns that hold numbers."""
_DELAYS: Final = ("waiting_to_ready", "ready_to_enqueue", "enqueue_to_dispatch")
_NAMES: Final = (
    *("vcpu", "entry", "timebase", "since_first_us", "processor_id"),
    *("dispatch_reason", "dispatched_by", "preempt_reason", "preempted_by"),
    *_DELAYS,
    *(f"{name}_us" for name in _DELAYS),
    *("fault_addr", "srr0", "srr1"),
)


class VcpuLog(NamedTuple):
    """A log and its vCPU, or None if the vCPU is unknown."""

    vcpu: int | None
    log: DispatchLog


def table(logs: Sequence[VcpuLog], frequency: int) -> list[str]:
    """Return the logs as lines: times in ticks and since each log's first entry, delays in microseconds of a
    timebase of `frequency` ticks a second.
    """
    lines: list[str] = []
    for one in logs:
        if lines:
            lines.append("")
        if one.vcpu is not None:
            lines.append(f"vCPU {one.vcpu}")
        rows = [_row(entry) for entry in _described(one, frequency)]
        lines += aligned([*_HEADINGS, *rows], _NUMBERS) if rows else ["no entries"]
        if lost := one.log.lost:
            lines.append(f"{lost} earlier {'entry is' if lost == 1 else 'entries are'} lost: overwritten")
    return lines


def as_csv(logs: Sequence[VcpuLog], frequency: int) -> str:
    """Return the entries as CSV under a line of names: reasons as codes and in words, times in ticks and,
    under names in _us, in microseconds.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _NAMES, lineterminator="\n")
    writer.writeheader()
    for one in logs:
        writer.writerows(_described(one, frequency))
    return text.getvalue()


def as_json(logs: Sequence[VcpuLog], frequency: int) -> dict[str, Any]:
    """Return the logs for JSON: `frequency`, and `logs`, each with its `vcpu`, what is `lost`, and `entries`
    as in the CSV.
    """
    return {
        "frequency": frequency,
        "logs": [
            {"vcpu": one.vcpu, "lost": one.log.lost, "entries": list(_described(one, frequency))}
            for one in logs
        ],
    }


def _described(one: VcpuLog, frequency: int) -> Iterator[dict[str, Any]]:
    log = one.log
    for number, entry in enumerate(log.entries, log.first or 0):
        yield {
            "vcpu": one.vcpu,
            "entry": number,
            "since_first_us": _microseconds(ticks_since(log.entries[0], entry), frequency),
            "dispatched_by": reason_name(DispatchReason, entry.dispatch_reason),
            "preempted_by": reason_name(PreemptReason, entry.preempt_reason),
            **{f"{name}_us": _microseconds(getattr(entry, name), frequency) for name in _DELAYS},
            **{name: getattr(entry, name) for name in DispatchLogEntry.__slots__},
        }


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(entry["entry"]),
        str(entry["timebase"]),
        *(f"{entry[f'{name}_us']:.3f}" for name in ("since_first", *_DELAYS)),
        str(entry["processor_id"]),
        entry["dispatched_by"],
        entry["preempted_by"],
        f"{entry['srr0']:#018x}",
    )


def _microseconds(ticks: int, frequency: int) -> float:
    """Round to the nanosecond. More digits would be noise of the float."""
    return round(ticks * 1_000_000 / frequency, 3)
