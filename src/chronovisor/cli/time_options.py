"""The options about how a guest's time continues."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.machine.sizes import parse_duration
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import PolicyError, TimePolicy
from chronovisor.timebase.types import Ticks

TIME_HELP = "Whether the time away counts: freeze (none of it), catch-up (all), bounded:SECONDS (at most)."

ClockErrorLimit: TypeAlias = Annotated[
    str,
    typer.Option(
        help="How far rounding may bring the guest's clock from its ideal; 16.384ms is the least.",
        metavar="DURATION",
        show_default="16.384ms",
    ),
]


def parse_policy(text: str) -> TimePolicy:
    """Return the policy that `--time` names; MachineError if it does not name one."""
    try:
        return TimePolicy.parse(text)
    except PolicyError as error:
        raise MachineError(str(error)) from None


def parse_limit(text: str) -> Ticks:
    """Return the limit of `--clock-error-limit`, or the least if none is given; MachineError for less."""
    if not text:
        return CLOCK_ERROR_LIMIT
    limit = parse_duration(text, "clock error limit")
    if limit < CLOCK_ERROR_LIMIT:
        raise MachineError(
            f"clock error limit {text}: offsets are multiples of 2^24 ticks (32.768 ms), "
            "so the least that can be promised is half of that, 16.384ms"
        )
    return limit
