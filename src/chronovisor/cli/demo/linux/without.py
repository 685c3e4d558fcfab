"""The fifth act where Linux cannot be shown: the demonstration's own guest, its timebase set back."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.watched import ENGINE, IMAGE, ask_for_report
from chronovisor.machine.host import Host
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import FREQUENCY, GRANULE

_STEPS: Final = 64
"""The timebase is set back by so many times 2^24 ticks: 2.1 s."""


def play_without(why: str) -> Act:
    """Say why there is no Linux, and show what the offset protects a guest from."""
    act = Act("Linux: left out")
    act.shown.append(Text(f"  {why}"))
    with Host(clock=VirtualTime(), tb_origin=1 << 40, engine=ENGINE) as host:
        guest = host.boot(IMAGE, tb_offset=_STEPS * GRANULE)
        before = ask_for_report(guest).backward_steps
        guest.set("TB_OFFSET", 0)
        after = ask_for_report(guest).backward_steps
    act.check(
        "the timebase seen by the guest must not go backwards",
        f"the demonstration's own guest, its timebase set back by {_STEPS * GRANULE / FREQUENCY:.1f} s: "
        f"it saw {before} steps back before that, and {after} after it",
        before == 0 and after > 0,
    )
    act.json["linux"] = None
    act.json["linux_left_out"] = why
    return act
