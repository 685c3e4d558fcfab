"""The fifth act: what it finds to be wrong with a journey of Linux, and how it is played without Linux."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

import chronovisor as cv
from chronovisor.cli.debian import CACHE
from chronovisor.cli.demo.linux import act, qemu
from chronovisor.cli.demo.linux.act import Told, judge
from chronovisor.cli.demo.linux.embedded import SET_BACK, SetBack
from chronovisor.cli.demo.linux.guest import Wakings
from chronovisor.cli.demo.linux.journey import MOVES, LinuxJourney
from chronovisor.cli.demo.linux.listener import Listener, Uptime
from chronovisor.cli.demo.linux.without import play_without
from chronovisor.cli.demo.watched import SilentGuestError
from chronovisor.report.clock_check.lines import Back
from chronovisor.report.clock_check.report import Bounds, ClockStep, Limits, Report
from chronovisor.report.linux_picture import LinuxPicture, draw, error_label

SECOND = 1_000_000_000


def journey(**changes: object) -> LinuxJourney:
    """A journey with which nothing is wrong."""
    clock = cv.VirtualTime()
    hosts = [cv.Host(clock=clock, tb_origin=origin) for origin in (0, 10**18)]
    _, record = cv.move(hosts[0].boot("hello-le.elf"), hosts[1])
    for host in hosts:
        host.close()
    report = Report(Limits(), samples=100, cpus=2)
    report.timers.fired = 100
    made = LinuxJourney(
        3.0, [0.0] * (MOVES + 1), [10.0] * MOVES, report, [Wakings(1000, 70, 9000)] * 2, [record] * MOVES
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def set_back(*uptimes: tuple[float, float]) -> SetBack:
    """Answers about the uptime: seconds since the timebase was set back, and the uptime."""
    return SetBack(0, [Uptime(round(at * SECOND), up, 0.0) for at, up in uptimes], 0)


LEAPT = set_back((-0.4, 9.6), (-0.2, 9.8), (0.2, 1107.0))


def wrong(told: Told) -> list[str]:
    return [check.clause for check in judge(told).checks if not check.ok]


def test_a_sound_journey_is_well() -> None:
    peer = journey(records=(), silent=True, downtimes_ms=[20.0] * 3, errors_ms=[0.0, -20.0, -40.0])
    found = judge(Told(journey(), LEAPT, peer))
    assert [check.clause for check in found.checks if not check.ok] == []
    assert len(found.checks) == 7
    assert "printed no more" in found.checks[-1].seen


def went_back(report: Report) -> None:
    report.backs, report.back_lines = 1, [Back(1, 0, "mono", "vdso", 2, 1)]


def stepped(report: Report) -> None:
    granule = SET_BACK / 64 / 512e6 * SECOND
    report.steps = [ClockStep(("mono",), 1.0, 1, 2, Bounds(granule * 1.5, granule * 2))]


def lost_a_timer(report: Report) -> None:
    report.timers.lost = 1


def stalled(report: Report) -> None:
    report.complaints = {"RCU stall": 1, "long interrupt": 3}


@pytest.mark.parametrize(
    ("damage", "clause"),
    [
        (went_back, "must not go backwards"),
        (stepped, "should go forwards only by a small amount"),
        (lost_a_timer, "no timer is lost"),
        (stalled, "no watchdog, stall"),
    ],
)
def test_each_thing_that_is_wrong_is_found(damage: Callable[[Report], None], clause: str) -> None:
    damaged = journey()
    damage(damaged.report)
    found = wrong(Told(damaged, LEAPT, None))
    assert len(found) == 1
    assert clause in found[0]


def test_a_long_interrupt_on_a_busy_machine_is_no_fault() -> None:
    busy = journey()
    busy.report.complaints = {"long interrupt": 3}
    assert wrong(Told(busy, LEAPT, None)) == []


def test_a_cyclictest_that_never_reported_is_found() -> None:
    assert wrong(Told(journey(wakings=[]), LEAPT, None)) == ["no timer is lost or early"]


def test_a_timebase_set_back_that_nobody_notices_is_found() -> None:
    unnoticed = set_back((-0.4, 9.6), (-0.2, 9.8), (0.2, 10.2), (0.4, 10.4))
    assert wrong(Told(journey(), unnoticed, None)) == [
        "what the offset is for: the same guest, its timebase set back"
    ]


def test_an_uptime_that_falls_back_is_noticed() -> None:
    assert wrong(Told(journey(), set_back((-0.4, 9.6), (-0.2, 9.8), (2.3, 10.2)), None)) == []


def test_a_guest_that_answers_no_more_has_noticed() -> None:
    assert wrong(Told(journey(), set_back((-0.4, 9.6), (-0.2, 9.8)), None)) == []


def test_the_listener_takes_the_fastest_line_of_each_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that is 5 ms ahead after its move, on a console of changing delay."""
    now = 0
    monkeypatch.setattr("chronovisor.cli.demo.linux.listener.time.monotonic_ns", lambda: now)
    listener = Listener()
    lines = iter(range(100))

    def say(mono: int, delay: int) -> None:
        nonlocal now
        now = mono + delay
        listener.take(sample(next(lines), mono + ahead))

    ahead = 0
    for delay in (900_000, 200_000, 700_000):
        say(next_second(now), delay)
    listener.moving()
    say(next_second(now), 0)
    listener.moved()
    ahead = 5_000_000
    for delay in (200_000, 900_000):
        say(next_second(now), delay)
    assert listener.errors_ms == [0.0, 5.0]
    assert listener.wait(2, 0)
    assert not listener.wait(3, 0)


def test_what_follows_the_report_is_not_in_it() -> None:
    """The timebase is set back after the report of the moves."""
    listener = Listener()
    listener.take(sample(1, SECOND))
    report = listener.report()
    listener.take(checked(b"cc1 back seq=1 cpu=1 clock=mono via=vdso from=2 to=1"))
    assert (report.samples, report.backs, report.back_lines) == (1, 0, [])
    assert b" back seq=" in listener.lines[-1]


def next_second(now: int) -> int:
    return (now // SECOND + 1) * SECOND


def sample(seq: int, mono: int) -> bytes:
    line = (
        f"cc1 sample seq={seq} cpu=0 tb=1 span=1 freq=512000000 interval=50000000 mono={mono} raw={mono} "
        f"boot={mono} real={mono} monoc={mono} realc={mono} late=1 lost=0 skipped=0 backs=0"
    ).encode()
    return checked(line)


def checked(line: bytes) -> bytes:
    return line + b" sum=%08x\r\n" % crc32(line)


def test_without_linux_the_act_says_why_and_shows_something() -> None:
    small = play_without("no apt")
    assert small.ok
    assert small.json["linux_left_out"] == "no apt"


def test_without_apt_the_act_is_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(act.shutil, "which", lambda name: None)
    played = act.play(random.Random(1), tmp_path, tmp_path / "linux.png", in_virtual_time=False)
    assert played.ok
    assert "apt" in str(played.json["linux_left_out"])
    assert not (tmp_path / "linux.png").exists()


def test_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "linux.png"
    draw(LinuxPicture([0.0, 1.0], [0.0, -20.0], "QEMU", True, 16.4, [(-0.1, 5.0), (0.1, 1102.0)], 2.1), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    draw(LinuxPicture([0.0, 1.0], [], "", False, 16.4, [], 2.1), path)


def fails(*_: object) -> LinuxJourney:
    raise SilentGuestError("QEMU ended before it answered migrate")


def test_a_peer_that_fails_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "travel", fails)
    monkeypatch.setattr(qemu, "installed", lambda: True)
    peer, why = act._peer(Path("vmlinux"), b"")
    assert peer is None
    assert "QEMU ended" in why
    found = judge(Told(journey(), LEAPT, peer, why))
    assert found.ok
    assert any(why in str(shown) for shown in found.shown)


@pytest.mark.soak
@pytest.mark.oracle
def test_the_act_as_a_whole(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("needs Debian's apt, which brings the kernel")
    picture = tmp_path / "linux.png"
    played = act.play(random.Random(1), CACHE, picture, in_virtual_time=False)
    assert [check.seen for check in played.checks if not check.ok] == []
    assert len(played.checks) >= 6
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_error_that_is_rounded_to_zero_has_no_minus() -> None:
    assert [error_label(ms) for ms in (-0.04, 0.04, -0.06)] == ["+0.0 ms", "+0.0 ms", "-0.1 ms"]
