"""Run one unit as a guest, and move it when it asks for a migration on its console."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.sizes import parse_topology
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import FREQUENCY, Ticks

from .sources import Unit

MEMORY: Final = "512M"
LONGEST: Final = 300
"""Seconds that a unit may take on a machine that does much else."""
ORIGINS: Final = (0, 0x76A4_2EE7_86BB_C4)
"""Timebases that are years apart and of no common phase."""
TICKS_PER_INSTRUCTION: Final = 4
"""In virtual time: eight vCPUs share 128 million instructions in a second of it."""
_ASKS: Final = re.compile(
    r"(Now migrate the VM|Skipped VM migration|Begin continuous migration|End continuous migration\n).*"
)
_STATUS: Final = re.compile(r"EXIT: STATUS=(\d+)")


@dataclass(frozen=True)
class Result:
    """How a unit ended: its output with the verdicts, its status, and how often it moved."""

    output: str
    status: int | None
    moves: int

    def lines(self, verdict: str) -> list[str]:
        """The single tests with a verdict: PASS, FAIL, SKIP, KFAIL or XFAIL."""
        return [line for line in self.output.splitlines() if line.startswith(f"{verdict}: ")]


def run(folder: Path, unit: Unit, virtual: bool = False) -> Result:
    """Run a unit to its end, on the machine's own clock or in virtual time. AssertionError if it hangs."""
    topology = parse_topology(unit.smp)
    clock = "virtual" if virtual else RealTime()
    hosts = [
        Host(
            clock=clock,
            tb_origin=origin,
            cores=topology.cores,
            threads=topology.threads,
            engine="regions",
            ticks_per_instruction=TICKS_PER_INSTRUCTION,
        )
        for origin in (ORIGINS[:1] if virtual else ORIGINS)
    ]
    try:
        guest = hosts[0].boot(
            folder / unit.file,
            "1G" if "-m 1g" in unit.options else MEMORY,
            topology.vcpus,
            topology.threads,
            unit.arguments,
        )
        base = re.search(r"-rtc base=\W*([\d-]+)", unit.options)
        guest.wall_clock.start(base.group(1) if base else "utc")
        if virtual:
            guest.run_for(Ticks(LONGEST * FREQUENCY))
            return _result(guest, 0)
        return _watch(guest, hosts)
    finally:
        for host in hosts:
            host.close()


def _watch(guest: Guest, hosts: list[Host]) -> Result:
    seen = moves = 0
    continuous = False
    deadline = time.monotonic() + LONGEST
    guest.resume()
    while guest.end is None:
        assert time.monotonic() < deadline, guest.console_text[-2000:]
        asked = _ASKS.search(guest.console_text, seen)
        if asked is not None or continuous:
            what = "" if asked is None else asked.group(1)
            if what.startswith("Now") or not what:
                moves += 1
                guest, _ = move(guest, hosts[moves % len(hosts)], Link())
            if asked is not None:
                continuous = what.startswith("Begin") or (continuous and not what.startswith("End"))
                seen = asked.end()
                guest.console.type("\n")
        else:
            time.sleep(0.01)
    return _result(guest, moves)


def _result(guest: Guest, moves: int) -> Result:
    status = _STATUS.search(guest.console_text)
    return Result(guest.console_text, int(status.group(1)) if status else None, moves)
