"""The guest's half, run as a process: on this processor, and on the others under qemu-user."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from itertools import pairwise

import pytest

from chronovisor.machine.files import SHIPPED
from chronovisor.report.clock_check.lines import CLOCKS, COARSE, Bye, Hello, Line, Sample, parse

ARCHITECTURES = ("ppc64le", "ppc64", "x86-64", "aarch64")
MACHINES = {"x86_64": "x86-64"}


def command(arch: str, *options: str) -> list[str]:
    """How the program is run here; the test is skipped if it cannot be."""
    emulator = f"qemu-{arch.replace('-', '_')}-static"
    here = platform.machine()
    if MACHINES.get(here, here) == arch:
        emulation = []
    elif shutil.which(emulator):
        emulation = [emulator]
    else:
        pytest.skip(f"needs {emulator} (Debian: qemu-user-static)")
    return [*emulation, str(SHIPPED / "clockcheck" / arch), *options]


def printed(arch: str, *options: str) -> list[Line | None]:
    ended = subprocess.run(command(arch, *options), capture_output=True, timeout=60, check=True)
    assert ended.stderr == b""
    return [parse(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_reads_every_clock_and_says_so(arch: str) -> None:
    hello, *samples, bye = printed(arch, "seconds=1", "interval=250")
    assert isinstance(hello, Hello)
    assert (hello.arch, hello.interval, hello.cpus) == (arch, 250_000_000, len(os.sched_getaffinity(0)))
    assert hello.frequency > 1_000_000
    # Processes have no vDSO under qemu-user.
    assert hello.vdso == (len(command(arch)) == 1)
    assert isinstance(bye, Bye)
    assert (bye.seq, bye.backs, bye.early, bye.lost) == (len(samples), 0, 0, 0)
    assert len(samples) + bye.skipped >= 4
    cpus = set()
    for earlier, later in pairwise(samples):
        assert isinstance(earlier, Sample)
        assert isinstance(later, Sample)
        assert set(later.clocks) == {*CLOCKS, *COARSE}
        assert later.seq == earlier.seq + 1
        assert (later.lost, later.backs) == (0, 0)
        advance = {clock: later.clocks[clock] - earlier.clocks[clock] for clock in CLOCKS}
        assert 0 < max(advance.values()) - min(advance.values()) + 1 < 10_000_000
        counted = (later.counter - earlier.counter) / later.frequency * 1e9
        assert counted == pytest.approx(advance["raw"], rel=0.01, abs=5_000_000)
        cpus |= {earlier.cpu, later.cpu}
    assert cpus == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    "option",
    ["interval=0", "interval=60001", "seconds=", "seconds=1x", "cpus=", "cpus=9-", "cpus=8191", "more"],
)
def test_an_option_that_makes_no_sense_is_one_line(option: str) -> None:
    ended = subprocess.run(command("x86-64", option), capture_output=True, timeout=10)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f'clockcheck: cannot take "{option}": give seconds=N'.encode())
    assert ended.stdout.count(b"\n") == 1


def test_it_stays_on_the_cpus_that_it_is_given() -> None:
    last = max(os.sched_getaffinity(0))
    samples = [each for each in printed("x86-64", "seconds=1", "interval=300", f"cpus={last}") if each]
    assert {each.cpu for each in samples if isinstance(each, Sample)} == {last}
