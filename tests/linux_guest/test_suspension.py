"""Linux suspends itself for a move, and its watchdogs do not notice that."""

from __future__ import annotations

import pytest

from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.clock import RealTime
from linux_guest.guests import BOOT_SECONDS, OWN, Lines, busybox

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
STREAM = 0x1234
AGENT = f"""#!/bin/sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
echo ready
busybox sleep 1
echo {STREAM:#x} > /sys/kernel/mobility/migration
echo "status $?"
busybox poweroff -f
"""


def test_linux_suspends_itself_for_a_move() -> None:
    lines, clock = Lines(), RealTime()
    with (
        Host(clock=clock, cores=2, engine="regions") as host,
        Host(clock=clock, cores=2, engine="regions", tb_origin=9 << 50) as other,
    ):
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            smp=2,
            append="console=hvc0 cryptomgr.notests",
            console=Console(lines),
            initrd=busybox(AGENT),
        )
        assert guest.run_until("ready")
        guest.resume()
        moved, _ = move(guest, other, Link(), stream=STREAM)
        assert moved.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, lines.text[-2000:]
    assert "status 0" in lines.lines
    assert "calling ibm,suspend-me on CPU" in lines.text
    assert "waking all threads" in lines.text
    assert "lockup" not in lines.text
