"""Simpler rules for the offset on a move, to compare with the rule of the handover, and their faults.

Each rule takes the guest's time at its stop, the time since, and the destination's present time. Each uses
the guest's time as the last move left it, rounding included, and keeps no ideal.
"""

from __future__ import annotations

from chronovisor.timebase.types import GRANULE, GuestTime, HostTime, Offset, Ticks


def always_round_up(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Set the missing time and let the kernel round it up. The guest never goes back, but each move puts it
    ahead by 16.4 ms on average.
    """
    return Offset.rounded_up((stopped + elapsed).value - now.value)


def round_to_nearest(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Round to the nearest offset. There is no drift, but a guest that moves in less than 16.4 ms may go
    back.
    """
    return Offset.rounded_up((stopped + elapsed).value - now.value - GRANULE // 2)


def round_up_when_short(stopped: GuestTime, elapsed: Ticks, now: HostTime) -> Offset:
    """Round to the nearest offset, or up if that takes the guest back. The guest never goes back, but short
    moves still drift ahead.
    """
    nearest = round_to_nearest(stopped, elapsed, now)
    back = ((now + nearest) - stopped) < Ticks(0)
    return always_round_up(stopped, elapsed, now) if back else nearest
