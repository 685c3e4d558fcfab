"""Linux's watchdog over a step of the guest's clock: it follows VTB, which does not count the time away."""

from __future__ import annotations

import pytest

from chronovisor.machine.host import Host
from chronovisor.timebase.types import FREQUENCY, Ticks
from linux_guest.guests import OWN, Lines, busybox

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
STEP = 30 * FREQUENCY
BUSY = """#!/bin/sh
busybox mount -t proc proc /proc
echo 5 > /proc/sys/kernel/watchdog_thresh
echo ready
while :; do :; done
"""
"""Keeps a processor busy, and has the watchdog look every two seconds."""


@pytest.mark.parametrize("vtb_jumps", [False, True])
def test_a_step_of_the_timebase_is_no_lockup_and_one_of_vtb_would_be(vtb_jumps: bool) -> None:
    lines = Lines()
    with Host(cores=2, engine="regions") as host:
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            smp=2,
            append="console=hvc0 cryptomgr.notests",
            console=lines,
            initrd=busybox(BUSY),
        )
        assert guest.run_until("ready")
        guest.run_for(Ticks(2 * FREQUENCY))
        for vcpu in range(2):
            for register in ("TB_OFFSET", "VTB") if vtb_jumps else ("TB_OFFSET",):
                guest.set(register, guest.get(register, vcpu) + STEP, vcpu)
        guest.run_for(Ticks(9 * FREQUENCY))
    assert ("soft lockup" in lines.text) == vtb_jumps
