"""A busy Debian guest of two CPUs moves between hosts of random phase, and checks its own clocks."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from soak import share

from chronovisor.cli.debian import Packages
from chronovisor.cli.demo.linux.embedded import LinuxOnOurHosts
from chronovisor.cli.demo.linux.guest import initramfs
from chronovisor.cli.demo.linux.journey import LinuxJourney
from chronovisor.cli.demo.linux.listener import Listener
from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine.console import Console
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.restoration import Restored
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore
from chronovisor.report.clock_check.report import Report
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import FREQUENCY, GRANULE, MASK64, Ticks
from linux_guest.guests import OWN
from linux_guest.selftests import LATENCY_TESTS, NAMES, results, selftests

pytestmark = pytest.mark.oracle
SECOND = 1_000_000_000
NS_PER_TICK = 1e9 / FREQUENCY
ORIGINS = (0, 10 * GRANULE)
"""Two hosts in phase, so that a sound move rounds nothing."""
WATCHDOG = "echo 5 >/proc/sys/kernel/watchdog_thresh\n"
"""Has the kernel's watchdog report a CPU that is stuck for 10 s, within two seconds. A busy machine may keep
a vCPU's thread from running for less than that."""
PATIENCE, SILENCE = 60, 8
"""Seconds in which a guest must print its samples, and after which it counts as silent."""
LATE_MS = 10
"""By how much the fastest line of one stay may be later than that of another. A granule is 32.8 ms."""
SELFTESTS_SECONDS = 600
"""For how long a guest that moved a hundred times moves on, if some of the kernel's tests did not end."""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LinuxOnOurHosts, Path]]:
    """The guest, running, and a snapshot of it."""
    with LinuxOnOurHosts(OWN.vmlinux(), initramfs(Packages()), random.Random("ten moves")) as linux:
        linux.boot()
        assert linux.guest is not None
        path = tmp_path_factory.mktemp("linux") / "booted.snapshot"
        snapshot(linux.guest, path)
        yield linux, path


def expect_sound(came: LinuxJourney, records: list[MoveRecord]) -> None:
    report = came.report
    assert report.cpus == 2
    assert report.samples >= 10 * len(records)
    for record in records:
        assert abs(record.error_ticks) <= record.error_bound_ticks
        assert record.guest_tb_after >= record.guest_tb_before
    steps = [after - before for before, after in pairwise(came.errors_ms)]
    for seen, record in zip(steps, records, strict=True):
        allowed = Ticks(record.error_bound_ticks).ns / 1e6 + LATE_MS
        assert abs(seen - Ticks(record.error_ticks).ns / 1e6) <= allowed
    assert faults(report, max(record.error_bound_ticks for record in records)) == []


def faults(report: Report, bound_ticks: int) -> list[str]:
    """What the checker found that no sound move causes."""
    allowed = bound_ticks * NS_PER_TICK
    beyond = [s for s in report.steps if s.ns.low > allowed or s.ns.high < -allowed]
    # A busy machine may keep a vCPU's thread from running: the kernel then finds that an interrupt took long.
    complaints = [kind for kind in report.complaints if kind != "long interrupt"]
    found = {
        "a clock went back": report.backs + len(report.back_lines),
        "clocks disagree": len(report.disagreements),
        "a step beyond the record": len(beyond),
        "a timer fired early": report.timers.early,
        "a timer was lost": report.timers.lost,
    }
    return [what for what, count in found.items() if count] + complaints


def test_ten_moves_under_load(booted: tuple[LinuxOnOurHosts, Path]) -> None:
    linux, _ = booted
    linux.travel(10)
    came = linux.journey()
    expect_sound(came, linux.records)
    assert len(came.wakings) == 2
    for thread in came.wakings:
        assert thread.count > 100
        assert thread.least_us >= 0


@pytest.mark.soak
def test_a_hundred_moves_with_the_kernels_own_tests() -> None:
    """A whole campaign goes on after its hundred moves until each of the kernel's tests has ended once."""
    packages, moves = Packages(), share(100)
    archive = initramfs(packages, selftests(packages))
    with LinuxOnOurHosts(OWN.vmlinux(), archive, random.Random("a hundred moves")) as linux:
        linux.boot()
        linux.travel(moves)
        deadline = time.monotonic() + SELFTESTS_SECONDS
        while moves == 100 and _ended(linux) != NAMES and time.monotonic() < deadline:
            linux.travel(1)
        came = linux.journey()
        expect_sound(came, linux.records)
        assert all(thread.count > 100 for thread in came.wakings)
        # The kernel's limit for lateness is 40 ms, which a busy machine exceeds without a move.
        failed = {name for name, status in results(linux.listener.text) if status}
        assert failed <= LATENCY_TESTS
        assert moves < 100 or _ended(linux) == NAMES


def _ended(linux: LinuxOnOurHosts) -> set[str]:
    """Return the names of the kernel's tests that ended at least once."""
    return {name for name, _ in results(linux.listener.text)}


def offset_not_applied_on_one_vcpu(guest: Guest) -> None:
    """One vCPU keeps the offset that it had before the move."""
    before = read_register(guest.vcpus[1], "TB_OFFSET") - (ORIGINS[1] - ORIGINS[0])
    write_register(guest.vcpus[1], "TB_OFFSET", before & MASK64)


def offset_off_by_a_granule(guest: Guest) -> None:
    for vcpu in guest.vcpus:
        write_register(vcpu, "TB_OFFSET", (read_register(vcpu, "TB_OFFSET") + GRANULE) & MASK64)


def virtual_timebase_jumps(guest: Guest) -> None:
    for vcpu in guest.vcpus:
        write_register(vcpu, "VTB", read_register(vcpu, "VTB") + 60 * FREQUENCY)


def decrementers_lost(guest: Guest) -> None:
    """As if each decrementer had been started anew: it then has the largest value of its 32 bits, 4.2 s."""
    for vcpu in guest.vcpus:
        now = guest.system.clock.now().value + read_register(vcpu, "TB_OFFSET")
        write_register(vcpu, "DEC_EXPIRY", (now + 0x7FFF_FFFF) & MASK64)


Sabotage = Callable[[Guest], None]


@pytest.mark.parametrize(
    ("sabotage", "moves", "samples", "found"),
    [
        # Linux may take the step back for a leap of 1099 s, and then waits for ever.
        (offset_not_applied_on_one_vcpu, 1, 12, {"a clock went back", "silence"}),
        pytest.param(offset_off_by_a_granule, 1, 40, {"a step beyond the record"}, marks=pytest.mark.soak),
        pytest.param(virtual_timebase_jumps, 1, 60, {"soft lockup"}, marks=pytest.mark.soak),
        # A CPU that was just about to set its decrementer loses nothing.
        pytest.param(decrementers_lost, 6, 24, {"a timer fired 2 s late"}, marks=pytest.mark.soak),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_sabotage_is_caught(
    booted: tuple[LinuxOnOurHosts, Path],
    monkeypatch: pytest.MonkeyPatch,
    sabotage: Callable[[Guest], None],
    moves: int,
    samples: int,
    found: set[str],
) -> None:
    """A guest whose state is changed between its move and its first instruction at the destination."""
    listener, clock = Listener(), RealTime()
    patience = SILENCE if "silence" in found else PATIENCE
    here, there = (Host(clock=clock, tb_origin=origin, cores=2) for origin in ORIGINS)
    with here, there:
        guest, _ = restore(booted[1], here, Console(listener.take))
        guest.resume()
        guest.console.type(WATCHDOG)
        assert listener.wait(samples, PATIENCE)
        guest, sound = move(guest, there, Link())
        listener.moved()
        assert listener.wait(samples, PATIENCE)
        assert b"soft lockup" not in b"".join(listener.lines)
        release = Restored.release

        def released(self: Restored) -> Guest:
            moved = release(self)
            sabotage(moved)
            return moved

        monkeypatch.setattr(Restored, "release", released)
        records, came = [sound], True
        for number in range(moves):
            guest, record = move(guest, (here, there)[number % 2], Link())
            records.append(record)
            listener.moved()
            came = listener.wait(samples, patience, lambda: b" back seq=" in listener.lines[-1])
        guest.pause()
        report = listener.report()
        seen = faults(report, max(record.error_bound_ticks for record in records))
        if report.timers.worst_late_ns > 2 * SECOND:
            seen.append("a timer fired 2 s late")
        if not came and not report.back_lines:
            seen.append("silence")
        assert found & set(seen)
