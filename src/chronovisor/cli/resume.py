"""`chronovisor resume`: let a paused guest go on."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.cli.hop_record import summary
from chronovisor.cli.output import say
from chronovisor.cli.time_options import (
    MAX_STEP_DEFAULT,
    TIME_HELP,
    ClockErrorLimit,
    MaxStep,
    parse_limit,
    parse_policy,
    step_note,
)
from chronovisor.machine.control import PATIENCE, ask


def command(
    name: GuestName,
    time: Annotated[str, typer.Option(help=TIME_HELP, metavar="POLICY")] = "freeze",
    max_step: MaxStep = MAX_STEP_DEFAULT,
    clock_error_limit: ClockErrorLimit = "",
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Let a paused guest go on, with its time as the policy says.

    freeze is what is done unless another is named, as a debugger's user expects (and QEMU's `cont` does): the
    pause does not count, up to the rounding of offsets to 2^24 ticks. catch-up sets nothing: the guest's
    timebase went on, and timers that fell due fire once, at once.
    """
    policy = parse_policy(time, max_step)
    hop = ask(name, "resume", PATIENCE, time=str(policy), limit=parse_limit(clock_error_limit).value)
    print(json.dumps(hop, indent=2) if as_json else f"{name} goes on: {summary(hop)}")
    note = step_note(hop["elapsed_ticks"], hop["counted_ticks"], time, max_step)
    if note is not None:
        say(f"{name}: {note}")
