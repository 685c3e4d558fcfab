"""A user's work on a Debian disk: gcc builds zlib, zlib's own tests pass, and the guest moves meanwhile.

What comes out is what comes out in QEMU, byte for byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronovisor.cli.debian import Packages
from linux_guest import build_guest
from linux_guest.build_guest import MEMORY, Built

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
MOVES = 5
SECONDS = 20.0
"""Between two moves."""
LIMIT = 3600


class Side:
    """A process that runs the guest, and what it printed."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chronovisor", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self._output.read_bytes().decode(errors="replace")

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + LIMIT
        while words not in self.text:
            assert self.process.poll() is None, self.text[-3000:]
            assert time.monotonic() < deadline, self.text[-3000:]
            time.sleep(0.1)

    def ends(self) -> int:
        return self.process.wait(LIMIT)


def moved(kernel: Path, initrd: Path, disk: Path, scratch: Path) -> str:
    """Do the work on Chronovisor, from process to process; return what the guest printed."""
    side = Side(
        scratch / "side0",
        *("run", "--name", "side0", "--kernel", str(kernel), "--initrd", str(initrd), "--memory", MEMORY),
        *("--append", build_guest.running("work"), "--disk", str(disk)),
    )
    sides = [side]
    try:
        side.wait_for("building")
        for number in range(1, MOVES + 1):
            time.sleep(SECONDS)
            way = f"unix:{scratch / f'way{number}'}"
            there = Side(
                scratch / f"side{number}",
                *("receive", way, "--name", f"side{number}", "--once", "--disk", str(disk)),
            )
            sides.append(there)
            there.wait_for("waits at")
            command = [sys.executable, "-m", "chronovisor", "migrate", f"side{number - 1}", way]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert side.ends() == 0
            side = there
        assert side.ends() == 0, side.text[-3000:]
        return "".join(one.text for one in sides)
    finally:
        for one in sides:
            one.process.kill()


def test_zlib_builds_as_in_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    packages = Packages()
    disk, initrd = build_guest.prepared(packages)
    kernel, copy = packages.vmlinux(), tmp_path / "disk"
    build_guest.copied(disk, copy)
    begin = time.monotonic()
    ours = Built.of(moved(kernel, initrd, copy, tmp_path))
    between = time.monotonic()
    subprocess.run(["e2fsck", "-fn", str(copy)], check=True, capture_output=True)
    build_guest.copied(disk, copy)
    begin_qemu = time.monotonic()
    theirs = Built.of(build_guest.in_qemu(kernel, initrd, copy))
    end = time.monotonic()
    print(f"\nload {os.getloadavg()[0]:.1f}; {MOVES} moves: {between - begin:.0f} s in all, {ours}")
    print(f"QEMU: {end - begin_qemu:.0f} s in all, {theirs}")
    assert ours.sums == theirs.sums
    assert len(ours.sums) == 5
