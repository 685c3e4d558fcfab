"""The guest's half, run as a process: on this processor, and on the others under qemu-user."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from chronovisor.machine.files import SHIPPED
from chronovisor.report.clock_check.lines import CLOCKS, COARSE, Back, Bye, Hello, Line, Sample, parse

GUESTS = Path(__file__).parents[2] / "guests" / "clockcheck"
ARCHITECTURES = ("ppc64le", "ppc64", "x86-64", "aarch64")
NONE, COUNTER_BACK, CALL_BACK, TIMER_LOST, TIMER_EARLY = range(5)
"""The faults of `faulty_clocks.h`."""
EXPECTED = {
    NONE: (0, 0, 0),
    COUNTER_BACK: (1, 0, 0),
    CALL_BACK: (1, 0, 0),
    TIMER_LOST: (0, 0, 1),
    TIMER_EARLY: (0, 1, 0),
}
"""By the fault: readings that went back, timers early and lost."""
MACHINES = {"x86_64": "x86-64"}


def command(arch: str) -> list[str] | None:
    """How the program is run here; None if it cannot be."""
    program = str(SHIPPED / "clockcheck" / arch)
    here = platform.machine()
    if MACHINES.get(here, here) == arch:
        return [program]
    emulator = shutil.which(f"qemu-{arch.replace('-', '_')}-static")
    return None if emulator is None else [emulator, program]


def printed(process: subprocess.Popen[bytes]) -> list[Line | None]:
    out, _ = process.communicate(timeout=60)
    return [parse(line) for line in out.splitlines()]


def started(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def consoles() -> dict[str, list[Line | None]]:
    """What the program prints on each processor that can be had, all at once."""
    commands = {arch: words for arch in ARCHITECTURES if (words := command(arch)) is not None}
    running = {arch: started(*words, "seconds=1", "interval=250") for arch, words in commands.items()}
    return {arch: printed(process) for arch, process in running.items()}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_reads_every_clock_and_says_so(arch: str, consoles: dict[str, list[Line | None]]) -> None:
    if arch not in consoles:
        pytest.skip("needs qemu-user-static from Debian")
    hello, *samples, bye = consoles[arch]
    assert isinstance(hello, Hello)
    assert (hello.arch, hello.interval, hello.cpus) == (arch, 250_000_000, len(os.sched_getaffinity(0)))
    assert hello.frequency > 1_000_000
    # Processes have no vDSO under qemu-user.
    assert hello.vdso == (MACHINES.get(platform.machine(), platform.machine()) == arch)
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
    words = command("x86-64")
    if words is None:
        pytest.skip("needs qemu-user-static from Debian")
    ended = subprocess.run([*words, option], capture_output=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stdout.startswith(f'clockcheck: cannot take "{option}": give seconds=N'.encode())
    assert ended.stdout.count(b"\n") == 1


@pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("gcc") is None, reason="needs gcc for x86-64"
)
def test_it_sees_the_faults_that_it_is_for(tmp_path: Path) -> None:
    """The same source over machines that have a fault each, and on one CPU of them."""
    last = max(os.sched_getaffinity(0))
    running = {}
    for fault in EXPECTED:
        program = tmp_path / f"fault-{fault}"
        sources = ["-I", GUESTS, f"-DFAULT={fault}", "-include", Path(__file__).with_name("faulty_clocks.h")]
        flags = [
            "-O1",
            "-ffreestanding",
            "-fno-pie",
            "-fno-stack-protector",
            "-nostdlib",
            "-static",
            "-no-pie",
        ]
        subprocess.run(["gcc", *flags, *sources, GUESTS / "clockcheck.c", "-o", program], check=True)
        running[fault] = started(program, "seconds=1", "interval=250", f"cpus={last}")
    for fault, process in running.items():
        lines = printed(process)
        bye = lines[-1]
        assert isinstance(bye, Bye)
        # The program does not wait for a timer that is made to look lost, so that one seems early too.
        early = 0 if fault == TIMER_LOST else bye.early
        assert (bye.backs, early, bye.lost) == EXPECTED[fault]
        assert {each.cpu for each in lines if isinstance(each, Sample)} == {last}
        told = [(each.clock, each.via, each.before - each.after) for each in lines if isinstance(each, Back)]
        if fault == COUNTER_BACK:
            ((clock, via, ticks),) = told
            assert (clock, via) == ("tb", "counter")
            assert 0 < ticks <= 1 << 24
        elif fault == CALL_BACK:
            ((clock, via, nanoseconds),) = told
            assert (clock, via) == ("mono", "call")
            assert 0 < nanoseconds <= 3 * 10**9
        else:
            assert told == []
