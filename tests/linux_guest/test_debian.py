"""Debian's kernel with nothing but the checker of clocks as its init: it boots and powers off.

test_moves.py has a guest that does more.
"""

from __future__ import annotations

import time

import pytest

from chronovisor.cli.clockcheck.guest_half import initramfs
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from chronovisor.report.clock_check.check import ClockCheck
from linux_guest.guests import BOOT_SECONDS, OWN

pytestmark = pytest.mark.oracle


@pytest.mark.soak
def test_debian_powers_off() -> None:
    append = "console=hvc0 cryptomgr.notests clockcheck.seconds=5"
    with Host(cores=2, engine="regions") as host:
        guest = host.boot(OWN.vmlinux(), "512M", smp=2, append=append, initrd=initramfs("ppc64le"))
        end = guest.run(timeout=BOOT_SECONDS)
        assert end.reason is EndReason.POWER_OFF, guest.console.text[-2000:]
        assert "smp: Brought up 1 node, 2 CPUs" in guest.console.text
        check = ClockCheck()
        for line in guest.console.printed.splitlines():
            check.line(line, time.monotonic_ns())
        assert check.finished
