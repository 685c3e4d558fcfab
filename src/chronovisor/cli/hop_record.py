"""A hop of a guest's life, and all its hops, as text."""

from __future__ import annotations

from typing import Any

from chronovisor.cli.output import terminal_width
from chronovisor.report.columns import fitting
from chronovisor.timebase.history import AwayClock, HopKind
from chronovisor.timebase.types import Ticks

_COLUMNS = ("HOP", "WHAT", "AWAY", "COUNTED", "BY", "CLOCK ERROR", "BOUND ±", "SINCE BIRTH", "GUEST TIMEBASE")


def summary(hop: dict[str, Any]) -> str:
    """Return what a hop (`Hop.as_json`) did to the guest's time, in a line."""
    away = (
        f"how long it was away is not known, and does not count ({hop['policy']})"
        if hop["clock"] == AwayClock.NONE
        else f"away {_seconds(hop['elapsed_ticks'])} by the {_clock(hop)}, "
        f"{_seconds(hop['counted_ticks'])} of it counted ({hop['policy']})"
    )
    return (
        f"{away}; clock error {_milliseconds(hop['error_ticks'])}, "
        f"bound {_milliseconds(hop['error_bound_ticks'], '')}, "
        f"since its birth {_milliseconds(hop['rounding_ticks'])}; "
        f"waited {hop['wait_ns'] / 1e6:.3f} ms for the rounding"
    )


def life(history: dict[str, Any]) -> str:
    """Return a history (`History.as_json`) as a table, and what it comes to."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    if history["folded"]:
        rows.append((f"1-{history['folded']}", "folded", *("" for _ in _COLUMNS[2:])))
    rows += [_row(number, hop) for number, hop in enumerate(history["hops"], history["folded"] + 1)]
    least, most = history["ideal_least_ticks"], history["ideal_most_ticks"]
    return "\n".join(
        (
            f"born with timebase {history['born']:#018x}",
            *(fitting(rows, terminal_width()) if len(rows) > 1 else ()),
            f"away {_seconds(history['away_ticks'])} in all, "
            f"{_seconds(history['counted_ticks'])} of it counted",
            f"clock error since its birth {_milliseconds(history['rounding_ticks'])}: "
            f"between {_milliseconds(least)} and {_milliseconds(most)}",
        )
    )


def _row(number: int, hop: dict[str, Any]) -> tuple[str, ...]:
    after = f"{hop['guest_tb_after']:#018x}"
    if hop["kind"] == HopKind.SET:
        return (str(number), "set by owner", "", _seconds(hop["counted_ticks"]), "", "", "", "", after)
    return (
        str(number),
        f"{hop['kind']}, {hop['policy']}",
        "?" if hop["clock"] == AwayClock.NONE else _seconds(hop["elapsed_ticks"]),
        _seconds(hop["counted_ticks"]),
        _clock(hop),
        _milliseconds(hop["error_ticks"]),
        _milliseconds(hop["error_bound_ticks"], ""),
        _milliseconds(hop["rounding_ticks"]),
        after,
    )


def _clock(hop: dict[str, Any]) -> str:
    return f"{hop['clock']}{' (not trusted)' if hop['clock'] == AwayClock.WALL else ''}"


def _seconds(ticks: int) -> str:
    return f"{Ticks(ticks).seconds:.3f} s"


def _milliseconds(ticks: int, sign: str = "+") -> str:
    return f"{Ticks(ticks).seconds * 1000:{sign}.3f} ms"
