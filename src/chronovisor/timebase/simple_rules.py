"""Simpler rules for the offset on a move, for comparison with the handover's: what each of them gets wrong.

Each takes the guest's time when it stopped, the time since, and the destination's time now; each re-reads
the guest's time as the last move left it, rounding included, and knows of no ideal.
"""

from __future__ import annotations

from chronovisor.timebase.types import GRANULE, GuestTime, HostTime, Offset, Ticks


def always_round_up(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Set what the guest lacks and let the kernel round it up: never back, but ahead by 16.4 ms a move on
    average.
    """
    return Offset.rounded_up((stopped + elapsed).value - now.value)


def round_to_nearest(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Round to the nearest offset: no drift, but a guest that moves in under 16.4 ms may be taken back."""
    return Offset.rounded_up((stopped + elapsed).value - now.value - GRANULE // 2)


def round_up_when_short(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Round to nearest unless that takes the guest back, then up: never back, but short moves still drift
    ahead.
    """
    nearest = round_to_nearest(stopped, elapsed, now)
    back = ((now + nearest) - stopped) < Ticks(0)
    return always_round_up(stopped, elapsed, now) if back else nearest
