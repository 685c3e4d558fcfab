"""`chronovisor offset`: which timebase offset to set on Power hardware."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.machine.sizes import parse_u64
from chronovisor.timebase.offset_advice import Choice, advise
from chronovisor.timebase.types import FREQUENCY, GuestTime, HostTime, Ticks

_SECONDS = re.compile(r"(\d+)(?:\.(\d{1,12}))?")


def command(
    guest_tb: Annotated[str, typer.Option(help="The guest's timebase when it stopped, in ticks (or 0x…).")],
    host_tb: Annotated[str, typer.Option(help="The new host's timebase now, in ticks (or 0x…).")],
    elapsed: Annotated[str, typer.Option(help="Seconds between the two readings.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Compute the KVM_REG_PPC_TB_OFFSET to set. Show what the kernel makes of it, the error, and whether the
    guest would step back.
    """
    advice = advise(
        GuestTime(parse_u64(guest_tb, "guest timebase")),
        HostTime(parse_u64(host_tb, "host timebase")),
        _ticks(elapsed),
    )
    choices = {"kernel": advice.kernel, "nearest": advice.nearest}
    if as_json:
        answer = {name: _as_json(choice) for name, choice in choices.items()}
        print(
            json.dumps({"wanted": advice.wanted, "wanted_signed": advice.wanted_signed, **answer}, indent=2)
        )
        return
    print(f"exact offset     {advice.wanted:#018x}  ({advice.wanted_signed:+d} ticks)")
    print(f"the kernel keeps {_described(advice.kernel)}")
    if advice.nearest != advice.kernel:
        print(f"nearest          {_described(advice.nearest)}")


def _ticks(seconds: str) -> Ticks:
    match = _SECONDS.fullmatch(seconds.strip())
    if match is None:
        raise MachineError(f"time elapsed {seconds!r}: write seconds, as in 0.25; time does not go back")
    fraction = match[2] or ""
    # Computed from the decimal digits: a float would lose ticks after some weeks.
    return Ticks(int(match[1] + fraction) * FREQUENCY // 10 ** len(fraction))


def _described(choice: Choice) -> str:
    steps = (
        f"it would step back, unless held for {choice.wait.seconds * 1000:.3f} ms"
        if choice.steps_back
        else "it does not step back"
    )
    return (
        f"{choice.offset.value:#018x}\n    guest's clock: {_milliseconds(choice.error)} against its ideal\n"
        f"    {steps}"
    )


def _milliseconds(ticks: Ticks) -> str:
    return f"{ticks.seconds * 1000:+.3f} ms ({ticks.value:+d} ticks)"


def _as_json(choice: Choice) -> dict[str, int | bool]:
    return {
        "offset": choice.offset.value,
        "error_ticks": choice.error.value,
        "guest_tb": choice.guest_time.value,
        "steps_back": choice.steps_back,
        "wait_ticks": choice.wait.value,
    }
