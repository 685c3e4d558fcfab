"""Debian with systemd boots until it is "running", runs a Python program, and powers off."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chronovisor.cli.debian import Packages
from chronovisor.machine.cpio import Archive
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from linux_guest.guests import BOOT_SECONDS, COMPLAINTS, OWN, PATIENT, TRIXIE, TRIXIE_64K, Kernel, Lines
from linux_guest.systemd_image import systemd_image

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
PROGRAM = Path(__file__).parent / "python_program.py"
APPEND = f"console=hvc0 quiet TERM=dumb systemd.log_color=0 {PATIENT}"
CHECK = """#!/bin/sh
say() { echo "check: $*" > /dev/console; }
state=$(systemctl is-system-running --wait)
say "state $state"
systemctl list-units --failed --plain --no-legend | while read -r unit rest; do say "failed $unit"; done
say "python $(python3 /usr/local/bin/program.py 2>&1)"
say "watchdog $(journalctl --no-pager -q -p warning -g 'stall|lockup|clocksource' | wc -l)"
systemctl poweroff
"""
CHECK_UNIT = """[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/local/bin/check
[Install]
WantedBy=multi-user.target
"""
BROKEN_UNIT = """[Service]
Type=oneshot
ExecStart=/bin/false
"""


def image() -> bytes:
    """Debian's image, and behind it what this test adds."""
    out = io.BytesIO()
    archive = Archive(out)
    units = "etc/systemd/system"
    archive.file(f"{units}/check.service", CHECK_UNIT.encode())
    archive.link(f"{units}/multi-user.target.wants/check.service", "../check.service")
    archive.file(f"{units}/broken.service", BROKEN_UNIT.encode())
    archive.file("usr/local/bin/check", CHECK.encode(), 0o755)
    archive.file("usr/local/bin/program.py", PROGRAM.read_bytes())
    archive.link("init", "sbin/init")
    archive.close()
    return systemd_image(Packages()).read_bytes() + out.getvalue()


def booted(kernel: Kernel, append: str = "") -> dict[str, list[str]]:
    """Boot until the guest powers off; return what the check said, by the first word."""
    lines = Lines()
    with Host(cores=2, engine="regions") as host:
        guest = host.boot(
            kernel.vmlinux(), "2G", smp=2, append=f"{APPEND} {append}", console=lines, initrd=image()
        )
        end = guest.run(timeout=BOOT_SECONDS)
    assert end.reason is EndReason.POWER_OFF, lines.text[-3000:]
    assert not COMPLAINTS.search(lines.text), lines.text
    said: dict[str, list[str]] = {}
    # The prompt for a login name may stand before what the check says.
    for word, rest in re.findall(r"check: (\w+) (.*)", lines.text):
        said.setdefault(word, []).append(rest)
    return said


@pytest.mark.parametrize("kernel", [OWN, TRIXIE, TRIXIE_64K], ids=["own", "trixie", "trixie-64k"])
def test_debian_runs_with_no_failed_unit(kernel: Kernel) -> None:
    said = booted(kernel)
    assert said["state"] == ["running"], said
    assert "failed" not in said
    here = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert said["python"] == [here.stdout.strip()]
    assert said["watchdog"] == ["0"]


def test_a_failed_unit_is_seen() -> None:
    said = booted(OWN, "systemd.wants=broken.service")
    assert said["state"] == ["degraded"]
    assert said["failed"] == ["broken.service"]
