"""Debian's kernel and nothing but the checker of clocks, in QEMU: a guest that is stopped for a while."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.debian import Packages
from real_kvm.machine import QEMU

pytestmark = pytest.mark.real_kvm
COMMAND = Path(sys.executable).with_name("chronovisor")
STOPPED = 2.5
BOARD = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"


@pytest.fixture
def guest(tmp_path: Path) -> list[str]:
    """A command that boots the guest; its monitor is the socket `monitor`."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"needs {QEMU}")
    assert main(["clockcheck", "--initramfs", str(tmp_path / "initramfs"), "--arch", "ppc64le"]) == 0
    return [
        *(QEMU, "-M", BOARD, "-cpu", "power9", "-m", "512M", "-smp", "2", "-nodefaults"),
        *("-display", "none", "-serial", "stdio"),
        *("-monitor", f"unix:{tmp_path / 'monitor'},server=on,wait=off"),
        *("-kernel", str(Packages().vmlinux()), "-initrd", str(tmp_path / "initramfs")),
        *("-append", "console=hvc0 quiet clockcheck.seconds=10"),
    ]


def samples(log: Path) -> int:
    return log.read_bytes().count(b"cc1 sample ") if log.exists() else 0


def test_a_guest_that_was_stopped_is_told_to_the_bound(guest: list[str], tmp_path: Path) -> None:
    """QEMU's `stop` and `cont` freeze a guest's clocks, which then lag the host's by the time between."""
    log = tmp_path / "log"
    with subprocess.Popen(
        [COMMAND, "clockcheck", "--json", "--log", str(log), "--", *guest], stdout=subprocess.PIPE
    ) as check:
        try:
            until = time.monotonic() + 60
            while samples(log) < 50:
                assert time.monotonic() < until, "the guest printed no samples"
                assert check.poll() is None
                time.sleep(0.05)
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(str(tmp_path / "monitor"))
                asked = time.monotonic()
                monitor.sendall(b"stop\n")
                time.sleep(STOPPED)
                monitor.sendall(b"cont\n")
                # No more than this: the monitor takes a command when it can.
                most = time.monotonic() - asked + 0.2
                out, _ = check.communicate(timeout=60)
        finally:
            check.kill()
    found = json.loads(out)
    assert check.returncode == 6
    assert found["finished"]
    assert found["hello"]["arch"] == "ppc64le"
    assert found["hello"]["vdso"]
    assert found["cpus"] == 2
    (step,) = found["steps"]
    assert sorted(step["clocks"]) == ["boot", "mono", "raw", "real", "tb"]
    low, high = step["ns"]["low"] / 1e9, step["ns"]["high"] / 1e9
    assert low <= -STOPPED + 0.2
    assert high >= -most
    assert high - low < 0.2
    assert (found["backs"], found["disagreements"]) == (0, [])
    assert (found["timers"]["early"], found["timers"]["lost"]) == (0, 0)
    longest = max(found["silences"], key=lambda silence: silence["host_ns"])
    assert longest["host_ns"] - longest["guest_ns"] == pytest.approx(STOPPED * 1e9, abs=0.3e9)
