"""A move's record as text."""

from __future__ import annotations

from chronovisor.migration.transfer import MoveReport
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Ticks


def summary(record: MoveRecord) -> str:
    """Return the record in a line."""
    return (
        f"downtime {record.downtime_ns / 1e6:.3f} ms, {record.wait_ns / 1e6:.3f} of it for the rounding; "
        f"clock error {_milliseconds(record.error_ticks)}, "
        f"bound {_milliseconds(record.error_bound_ticks, '')}, "
        f"since its start {_milliseconds(record.rounding_ticks)}"
    )


def table(report: MoveReport) -> str:
    """Return the report in lines, one for each thing that there is to know."""
    record, transfer = report.record, report.transfer
    rows = {
        "guest timebase before": f"{record.guest_tb_before:#018x}",
        "guest timebase after": f"{record.guest_tb_after:#018x}",
        "source's origin": f"{record.from_origin:#018x}",
        "destination's origin": f"{record.to_origin:#018x}",
        "time elapsed": _ticks(record.elapsed_ticks),
        "  to within": f"± {record.elapsed_uncertainty_ticks} ticks",
        "of it counted": _ticks(record.counted_ticks),
        "ideal offset": f"{record.ideal_offset:#018x}",
        "rounded offset": f"{record.rounded_offset:#018x}",
        "clock error": _ticks(record.error_ticks, "+"),
        "error bound": _ticks(record.error_bound_ticks),
        "rounding so far": _ticks(record.rounding_ticks, "+"),
        "downtime": f"{record.downtime_ns / 1e6:.3f} ms",
        "  last round": f"{transfer.last_round_ns / 1e6:.3f} ms",
        "  device state": f"{transfer.device_state_ns / 1e6:.3f} ms",
        "  handshake": f"{transfer.handshake_ns / 1e6:.3f} ms",
        "  wait for the rounding": f"{record.wait_ns / 1e6:.3f} ms",
        "resumed after that": "?" if transfer.resume_ns is None else f"{transfer.resume_ns / 1e6:.3f} ms",
        "rounds": str(transfer.rounds),
        "memory": f"{transfer.memory_bytes} bytes",
        "  sent": f"{transfer.sent_bytes} bytes",
        "time in all": f"{transfer.duration_ns / 1e6:.3f} ms",
    }
    return "\n".join(f"{name:23} {value}" for name, value in rows.items())


def _milliseconds(ticks: int, sign: str = "+") -> str:
    return f"{Ticks(ticks).seconds * 1000:{sign}.3f} ms"


def _ticks(ticks: int, sign: str = "") -> str:
    return f"{_milliseconds(ticks, sign)} ({ticks:{sign}} ticks)"
