"""Debian's kernel on a terminal, through the commands: keys, the console's interrupt, a reboot and a panic;
and a guest in the background, to whose console terminals attach.
"""

from __future__ import annotations

import json
import re
import subprocess
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


@pytest.mark.soak
def test_terminals_attach_to_a_guest_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    kernel = OWN.vmlinux()
    (tmp_path / "initrd").write_bytes(busybox(SHELL))
    boot = subprocess.run(
        [
            *(sys.executable, "-m", "chronovisor", "run", "--detach", "--json", "--name", "alice"),
            *("--kernel", str(kernel), "--initrd", str(tmp_path / "initrd"), "--append", APPEND),
            *("--memory", "512M", "--smp", "2", "--timeout", "300"),
        ],
        check=True,
        capture_output=True,
    )
    log = Path(json.loads(boot.stdout)["log"])
    first = OnTerminal("console", "alice")
    first.until(b"Ctrl-] twice detaches")
    first.until(PROMPT)
    first.press(b"echo gre''eting\r")
    first.until(b"greeting")
    first.until(PROMPT)
    # Another one can look on, and types only if it takes the keys over.
    refused = OnTerminal("console", "alice")
    refused.until(b"somebody is attached to the console already: --force takes it over")
    assert refused.process.wait(30) == ExitStatus.USAGE
    watching = OnTerminal("console", "alice", "--read-only")
    watching.until(b"detaches")
    # Once the shell runs a command, the terminal takes keys in lines, and Ctrl-C is a signal. The command is
    # there once it says a line that was echoed before: the shell, and its child before that, lose the signal.
    first.press(b"echo re''ady; cat\r")
    first.until(b"ready")
    first.press(b"purr\r")
    for terminal in (first, watching):
        terminal.until(b"purr")
        terminal.until(b"purr")
    watching.press(b"not typed\r")
    first.press(b"\x03")
    first.until(b"^C")
    first.until(PROMPT)
    first.press(b"\x1d\x1d")
    assert first.process.wait(30) == ExitStatus.OK
    assert first.settings_are_as_before()
    second = OnTerminal("console", "alice")
    second.until(PROMPT)
    taking_over = OnTerminal("console", "alice", "--force")
    second.until(b"another one has taken the console over")
    assert second.process.wait(30) == ExitStatus.OK
    taking_over.until(PROMPT)
    taking_over.press(b"\x15echo re''ady; cat > /typed\r")
    taking_over.until(b"ready")
    typed = b"".join(b"%d of many lines that are typed at once\r" % line for line in range(200))
    # Linux echoes at most 16 bytes of what comes at once, so all of it is not seen.
    taking_over.press(typed + b"\x04")
    taking_over.until(PROMPT)
    taking_over.press(b"wc -c /typed\r")
    taking_over.until(b"%d /typed" % len(typed))
    taking_over.press(b"poweroff -f\r")
    for terminal in (taking_over, watching):
        terminal.until(b"alice is over")
        assert terminal.process.wait(30) == ExitStatus.OK
        assert terminal.settings_are_as_before()
    waited = subprocess.run([sys.executable, "-m", "chronovisor", "wait", "alice"], capture_output=True)
    assert waited.returncode == ExitStatus.OK
    logged = log.read_bytes()
    assert b"not typed" not in logged
    assert b"reboot: Power down" in logged
    for terminal in (first, refused, watching, second, taking_over):
        terminal.close()
