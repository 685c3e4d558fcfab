"""Debian's kernel on a terminal, through the command: keys, the console's interrupt, a reboot and a panic."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from chronovisor.cli.status import ExitStatus
from linux_guest.guests import OWN, busybox

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from test_keys import OnTerminal

pytestmark = pytest.mark.oracle
PROMPT = b"/ # "
APPEND = "console=hvc0 cryptomgr.notests quiet panic=1"
SHELL = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec setsid -c sh -i < /dev/hvc0 > /dev/hvc0 2>&1
"""


def test_a_shell_on_the_terminal_restarts_its_machine_and_panics(tmp_path: Path) -> None:
    kernel = OWN.vmlinux()
    (tmp_path / "initrd").write_bytes(busybox(SHELL))
    run = OnTerminal(
        *("run", "--kernel", str(kernel), "--initrd", str(tmp_path / "initrd"), "--append", APPEND),
        *("--memory", "512M", "--timeout", "300"),
    )
    run.until(PROMPT)
    # Ctrl-C ends the guest's program and not the run.
    # The echo of the keys does not hold the word that the guest prints.
    run.press(b"echo re''ady; cat\r")
    run.until(b"ready")
    # Once as the keys' echo and once by `cat`, which is there then: the shell would keep a Ctrl-C to itself.
    run.press(b"purr\r")
    run.until(b"purr")
    run.until(b"purr")
    run.press(b"\x03")
    run.until(b"^C")
    run.until(PROMPT)
    run.press(b"grep hvc_console /proc/interrupts\r")
    run.until(b"Edge      hvc_console")
    run.until(PROMPT)
    interrupts = re.search(rb": +(\d+) .*hvc_console", run.printed)
    assert interrupts is not None
    assert int(interrupts[1]) >= 3
    run.press(b"reboot -f\r")
    run.until(PROMPT)
    run.press(b"echo c > /proc/sysrq-trigger\r")
    run.until(b"chronovisor: the guest panicked: sysrq triggered crash")
    assert run.process.wait(30) == ExitStatus.PANIC
    assert run.settings_are_as_before()
    run.close()
