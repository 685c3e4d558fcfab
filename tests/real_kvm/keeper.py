"""Inside the machine: a guest of the kernel's KVM is paused, saved in a file, and restored from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.pause import Pause
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import inspect, restore
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import Ticks

FILE = Path("/tmp/guest.snapshot")
OFFSET = 5 << 40
A_WHILE = Ticks(256_000_000)
"""Of the host's clock: half a second."""


def keep(policy: str, away: float) -> dict[str, Any]:
    """Have a guest run, be paused for `away` seconds, run, lie in a file for as long, and run to its end; the
    records of both, and what the guest says.
    """
    with Host(provider="linux") as host:
        guest = host.boot("demo-le.elf", "16M", tb_offset=OFFSET)
        assert guest.run_until("watching")
        guest.run_for(A_WHILE)
        pause = Pause(guest)
        time.sleep(away)
        paused = pause.resume(TimePolicy.parse(policy)).record
        guest.run_for(A_WHILE)
        running = _running_times(guest)
        snapshot(guest, FILE)
        host.discard(guest)
        time.sleep(away)
        again, restored = restore(FILE, host, policy=policy)
        carried = _running_times(again) == running
        due = again.get("DEC_EXPIRY") == inspect(FILE).vcpus[0].dec_expiry
        again.run_for(A_WHILE)
        again.console.type("q")
        end = again.run(60)
        return {
            "records": [paused.as_json(), restored.as_json()],
            "carried": carried,
            "due": due,
            "end": end.message,
            "console": again.console_text,
        }


def _running_times(guest: Guest) -> list[int]:
    return [guest.get(name) for name in ("VTB", "PURR", "SPURR")]
