"""Debian's kernel as a guest of the embedded hypervisor: it boots, keeps its time, and moves.

Its init is the checker of clocks, which reads every clock on every CPU and prints stamped lines.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.cli.clockcheck.guest_half import initramfs
from chronovisor.cli.debian import Packages
from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.report.clock_check.check import ClockCheck
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import FREQUENCY

pytestmark = pytest.mark.oracle
APPEND = "console=hvc0 cryptomgr.notests clockcheck.seconds={}"
NS_PER_TICK = 1e9 / FREQUENCY
BOOT_SECONDS = 300
"""More than a boot takes on a machine that does much else: the run ends by itself long before."""
ORIGINS = (0, 0x76A4_2EE7_86BB_C4, 12345678901234567)
"""Timebases that are years apart and of no common phase."""


@pytest.fixture(scope="module")
def kernel() -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("needs Debian's apt and dpkg: they bring the kernel")
    return Packages().vmlinux()


class Watched:
    """A console whose lines are given to the checker with the time at which they came."""

    def __init__(self) -> None:
        self.check = ClockCheck()
        self.console = Console(self._take)
        self.lines: list[bytes] = []
        self._rest = b""

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.lines.append(line.rstrip(b"\r"))
            self.check.line(line.rstrip(b"\r"), time.monotonic_ns())

    @property
    def text(self) -> str:
        return b"\n".join(self.lines).decode(errors="replace")


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    clock = RealTime()
    made = [Host(clock=clock, tb_origin=origin, cores=2, engine="native") for origin in ORIGINS]
    yield made
    for host in made:
        host.close()


def booted(kernel: Path, host: Host, watched: Watched, seconds: int) -> Guest:
    """The guest, which has printed five samples and runs on."""
    guest = host.boot(
        kernel,
        "512M",
        smp=2,
        append=APPEND.format(seconds),
        console=watched.console,
        initrd=initramfs("ppc64le"),
    )
    deadline = time.monotonic() + BOOT_SECONDS
    guest.resume()
    while watched.check.samples < 5:
        assert guest.end is None, watched.text[-2000:]
        assert time.monotonic() < deadline, watched.text[-2000:]
        time.sleep(0.05)
    return guest


def test_debian_boots_and_moves(kernel: Path, hosts: list[Host]) -> None:
    """Over four moves no clock of the guest goes back, and none steps by more than the moves' records say."""
    watched = Watched()
    guest = booted(kernel, hosts[0], watched, 3600)
    assert "smp: Brought up 1 node, 2 CPUs" in watched.text
    records = []
    for hop in range(1, 5):
        seen = watched.check.samples
        guest, record = move(guest, hosts[hop % len(hosts)], Link())
        records.append(record)
        while watched.check.samples < seen + 3 and guest.end is None:
            time.sleep(0.02)
    assert guest.end is None, watched.text[-2000:]
    guest.pause()
    for record in records:
        assert abs(record.error_ticks) <= record.error_bound_ticks
        assert record.guest_tb_after >= record.guest_tb_before
    report = watched.check.report()
    assert report.cpus == 2
    assert report.samples >= 17
    assert not report.backs
    assert not report.disagreements
    # A busy machine may keep a vCPU's thread from running: the kernel then finds that an interrupt took long.
    assert report.complaints.keys() <= {"long interrupt"}
    assert (report.timers.early, report.timers.lost) == (0, 0)
    # A step that the console shows is no larger than the largest that a record allows.
    allowed = max(record.error_bound_ticks for record in records) * NS_PER_TICK
    for step in report.steps:
        assert step.ns.low <= allowed
        assert step.ns.high >= -allowed


@pytest.mark.soak
def test_debian_powers_off(kernel: Path, hosts: list[Host]) -> None:
    watched = Watched()
    guest = booted(kernel, hosts[0], watched, 5)
    end = guest.run(timeout=BOOT_SECONDS)
    assert end.reason is EndReason.POWER_OFF, watched.text[-2000:]
    assert watched.check.report().finished
