"""Simpler rules for the offset on a move, to compare with the rule of the handover, and their faults.

Each rule uses the guest's time as the last move left it, rounding included, and keeps no ideal. A rule gives
the guest's advance over the move, in ticks, from the time `elapsed` since its stop and from the `phase`: any
advance that the destination's offsets can give. It runs on ints and on arrays of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronovisor.timebase.types import GRANULE, MASK64, GuestTime, HostTime, Offset, Ticks


def advance_rounded_up(elapsed: Any, phase: Any) -> Any:
    """Set the missing time and let the kernel round it up. The guest never goes back, but each move puts it
    ahead by 16.4 ms on average.
    """
    return elapsed + (phase - elapsed) % GRANULE


def advance_to_nearest(elapsed: Any, phase: Any) -> Any:
    """Round to the nearest offset. There is no drift, but a guest that moves in less than 16.4 ms may go
    back.
    """
    return advance_rounded_up(elapsed - GRANULE // 2, phase)


def advance_up_when_short(elapsed: Any, phase: Any, choose: Callable[[Any, Any, Any], Any]) -> Any:
    """Round to the nearest offset, or up if that takes the guest back. The guest never goes back, but short
    moves still drift ahead.
    """
    nearest = advance_to_nearest(elapsed, phase)
    return choose(nearest < 0, advance_rounded_up(elapsed, phase), nearest)


def always_round_up(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Return the offset by `advance_rounded_up` at the destination's time `now`."""
    return _offset(advance_rounded_up(elapsed.value, now.value - stopped.value), stopped, now)


def round_to_nearest(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Return the offset by `advance_to_nearest` at the destination's time `now`."""
    return _offset(advance_to_nearest(elapsed.value, now.value - stopped.value), stopped, now)


def round_up_when_short(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Return the offset by `advance_up_when_short` at the destination's time `now`."""
    advance = advance_up_when_short(
        elapsed.value, now.value - stopped.value, lambda condition, then, other: then if condition else other
    )
    return _offset(advance, stopped, now)


def _offset(advance: int, stopped: GuestTime, now: HostTime) -> Offset:
    return Offset((stopped.value + advance - now.value) & MASK64)
