"""A user's work on a Debian disk: gcc builds zlib, zlib's own tests pass, and the guest moves meanwhile.

What comes out is what comes out in QEMU, byte for byte: of a first build, and of a second with the code cache
that the first one left. With regions on the disk, much more of the guest's code runs in regions, and control
enters them elsewhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.debian_build import Built, Work, processor_seconds

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
MOVES = 5
SECONDS = 10.0
"""Between two moves."""
LIMIT = 3600
TOOLS = {"mmdebstrap", "mke2fs", "debugfs", "qemu-system-ppc64"}
"""From Debian's mmdebstrap, e2fsprogs and qemu-system-ppc."""


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


def done_here(work: Work, disk: Path, scratch: Path, moves: int) -> str:
    """Do the work on Chronovisor, in one process more than it moves; return what the guest printed."""
    side = Side(scratch / "side0", *work.run(disk), "--name", "side0")
    sides = [side]
    try:
        side.wait_for("building")
        for number in range(1, moves + 1):
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
        assert "built in" not in side.text, "the work was done before the last move"
        assert side.ends() == 0, side.text[-3000:]
        return "".join(one.text for one in sides)
    finally:
        for one in sides:
            one.process.kill()


def told(name: str, begin: tuple[float, float], built: Built) -> None:
    seconds, processor = time.monotonic() - begin[0], processor_seconds() - begin[1]
    print(
        f"\n{name}: built in {built.build_s} s, tested in {built.test_s} s by the guest's clock; in all "
        f"{seconds:.0f} s and {processor:.0f} s of processor time; load {os.getloadavg()[0]:.1f}"
    )


def built_here(work: Work, scratch: Path, moves: int) -> Built:
    """Boot a disk of its own, do the work and look over the disk's file system."""
    disk = work.copied(scratch / "disk")
    begin = time.monotonic(), processor_seconds()
    built = Built.of(done_here(work, disk, scratch, moves))
    told(f"Chronovisor, with {moves} moves", begin, built)
    subprocess.run(["e2fsck", "-fn", str(disk)], check=True, capture_output=True)
    return built


def test_zlib_builds_as_in_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing := sorted(tool for tool in TOOLS if shutil.which(tool) is None):
        pytest.skip(f"needs {', '.join(missing)}")
    if os.geteuid():
        pytest.skip("needs root: the disk's files belong to several users")
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    work = Work.prepared()
    # Set when the disk is there, so the first build begins without regions.
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path / "code"))
    first = built_here(work, tmp_path, MOVES)
    kept = len(list((tmp_path / "code").glob("regions-*.o")))
    assert kept, "the first build left no regions to the second"
    print(f"regions of {kept} pages are kept")
    again = built_here(work, tmp_path, 0)
    disk = work.copied(tmp_path / "disk")
    begin = time.monotonic(), processor_seconds()
    theirs = Built.of(work.in_qemu(disk))
    told("QEMU", begin, theirs)
    assert first.sums == theirs.sums
    assert again.sums == theirs.sums
