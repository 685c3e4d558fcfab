"""Snapshots of each format version, kept: later versions read them, or say by their number why not.

`python tests/migration/golden_snapshots.py` writes those of the present version. A change to what snapshots
hold makes the kept ones unreadable: then the version goes up, and the old reader stays or says why it went.
"""

from __future__ import annotations

import lzma
import subprocess
import sys
import tempfile
from pathlib import Path

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.pause import Pause
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_format import VERSION
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import Ticks

DIRECTORY = Path(__file__).parent / "golden"
MS = 512_000
COMMAND = (sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())")
GUESTS = {
    "power9-le": ("demo-le.elf", "power9", 2, 1),
    "power8-be": ("demo-be.elf", "power8", 2, 2),
}
"""By name: the image, the processor, vCPUs, and threads of each virtual core."""


def lived(name: str) -> Guest:
    """A guest with something of everything that a snapshot holds."""
    image, cpu, vcpus, threads = GUESTS[name]
    clock = VirtualTime()
    hosts = [
        Host(clock=clock, tb_origin=origin, cpu=cpu, cores=vcpus // threads, threads=threads)
        for origin in (5 << 50, (9 << 50) + 7_654_321)
    ]
    guest = hosts[0].boot(image, "1M", vcpus, threads, f"vcpus={vcpus}", tb_offset=7 << 50)
    guest.run_for(Ticks(10 * MS))
    guest, _ = move(guest, hosts[1], Link([Ticks(MS)]))
    guest.run_for(Ticks(10 * MS))
    for policy in ("freeze", "catch-up", "bounded:0.05"):
        pause = Pause(guest)
        clock.advance(100 * MS)
        pause.resume(TimePolicy.parse(policy))
        guest.run_for(Ticks(10 * MS))
    for vcpu in range(vcpus):
        guest.set("TB_OFFSET", 6 << 50, vcpu)
    guest.run_for(Ticks(10 * MS))
    guest.name = name
    guest.console.type("r")
    return guest


def main() -> None:
    """Write the present version's."""
    directory = DIRECTORY / f"format-{VERSION}"
    directory.mkdir(parents=True, exist_ok=True)
    for name in GUESTS:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            snapshot(lived(name), path)
            (directory / f"{name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
            told = subprocess.run(
                [*COMMAND, "inspect", str(path), "--json"],
                capture_output=True,
                check=True,
            )
        (directory / f"{name}.json.xz").write_bytes(lzma.compress(told.stdout, preset=9))


if __name__ == "__main__":
    main()
