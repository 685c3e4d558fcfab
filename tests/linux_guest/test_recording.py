"""A Linux guest with two vCPUs, recorded, does again what it did: every register and byte is the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chronovisor.machine.host import Host
from chronovisor.migration.recording import Recording
from chronovisor.timebase.types import FREQUENCY, Ticks
from linux_guest.guests import OWN, THREE_LINES, busybox

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from recorded import assert_it_repeats_itself

pytestmark = [pytest.mark.oracle, pytest.mark.soak]


def test_every_stretch_of_a_boot_repeats_itself() -> None:
    with Host(clock="virtual", cores=2, ticks_per_instruction=4) as host:
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            smp=2,
            append="console=hvc0 cryptomgr.notests",
            initrd=busybox(THREE_LINES),
        )
        compared = 0
        # Of each of some parts of the boot, 80 million instructions.
        for seconds in (0.5, 0.1):
            guest.run_for(Ticks(int(FREQUENCY * seconds)))
            recording = Recording(guest, 1 << 30)
            guest.run_for(Ticks(int(FREQUENCY * 0.6)))
            compared += assert_it_repeats_itself(recording)
            guest.recorder = None
        assert compared >= 20
