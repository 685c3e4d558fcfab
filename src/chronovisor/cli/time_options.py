"""The options about how a guest's time continues."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.machine.sizes import parse_duration
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import CATCH_UP, PolicyError, TimePolicy
from chronovisor.timebase.types import FREQUENCY, Ticks

TIME_HELP = "Whether the time away counts: freeze (none of it), catch-up (all), bounded:SECONDS (at most)."

ClockErrorLimit: TypeAlias = Annotated[
    str,
    typer.Option(
        help="How far rounding may bring the guest's clock from its ideal; 16.384ms is the least.",
        metavar="DURATION",
        show_default="16.384ms",
    ),
]

MAX_STEP_DEFAULT: Final = "20"
"""Seconds. Linux reports a soft lockup after twice the threshold of its watchdog, which is 10 s."""

MaxStep: TypeAlias = Annotated[
    str,
    typer.Option(
        help="With catch-up: the most seconds by which the guest's clock goes forward. A longer step looks "
        "like a lockup to its watchdogs.",
        metavar="SECONDS",
    ),
]


def parse_policy(text: str, max_step: str) -> TimePolicy:
    """Return the policy that `--time` names, with the bound of `--max-step`.

    MachineError if either makes no sense.
    """
    try:
        policy = TimePolicy.parse(text)
    except PolicyError as error:
        raise MachineError(str(error)) from None
    try:
        return policy.at_most(TimePolicy.parse(f"bounded:{max_step}").most or Ticks(0))
    except PolicyError:
        raise MachineError(f"--max-step {max_step!r}: write a number of seconds, as in 20") from None


def step_note(elapsed: int, counted: int, time: str, max_step: str) -> str | None:
    """Return a line for a guest that caught up by `counted` of `elapsed` ticks; None for all of them.

    `time` and `max_step` are the options' texts.
    """
    if time != str(CATCH_UP) or counted >= elapsed:
        return None
    return (
        f"its clock went forward by {counted / FREQUENCY:.3f} s of the {elapsed / FREQUENCY:.3f} s that it "
        f"was away, because of --max-step {max_step}: a longer step looks like a lockup to its watchdogs"
    )


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
