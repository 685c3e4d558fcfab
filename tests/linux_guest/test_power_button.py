"""Linux is told to shut down, as by `system_powerdown`, and runs its helper for that."""

from __future__ import annotations

import pytest

from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from linux_guest.guests import BOOT_SECONDS, OWN, Lines, busybox

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
WAITING = """#!/bin/sh
busybox mount -t proc proc /proc
echo /bin/helper > /proc/sys/kernel/poweroff_cmd
echo ready
while true; do busybox sleep 1; done
"""
HELPER = b"""#!/bin/sh
echo "shutting down" > /dev/console
busybox poweroff -f
"""


def test_linux_shuts_down_when_it_is_told_to() -> None:
    lines = Lines()
    with Host(engine="regions") as host:
        guest = host.boot(
            OWN.vmlinux(),
            "512M",
            append="console=hvc0 cryptomgr.notests",
            console=Console(lines),
            initrd=busybox(WAITING, {"helper": HELPER}),
        )
        assert guest.run_until("ready")
        guest.platform.power_button.press()
        assert guest.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, lines.text[-2000:]
    assert "Power off requested" in lines.text
    assert "shutting down" in lines.text
    assert "forcing the issue" not in lines.text
