"""A check of a guest's clocks finds what is wrong with them, within the stated bounds, and nothing else."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from report.synthetic_console import ALL, INTERVAL, MadeUp, sealed

from chronovisor.report.clock_check import ClockCheck, Limits, Report
from chronovisor.report.clock_check.floor import WINDOW
from chronovisor.report.clock_check.kernel import shown

MS = 1_000_000
ALLOWANCE = Limits().allowance


def checked(lines: Iterable[tuple[bytes, int | None]], limits: Limits | None = None) -> Report:
    check = ClockCheck(limits)
    for text, at in lines:
        check.line(text, at)
    return check.report()


def delays(seed: int, count: int, jitter: int, floor: int = 300_000) -> list[int]:
    """Delays that keep the module's assumption and no more: of any `WINDOW` in a row one is at most the
    allowance above the floor, the others are anything up to `jitter`.
    """
    draw = random.Random(seed)
    made = [floor + draw.randrange(jitter) for _ in range(count)]
    for at in range(draw.randrange(WINDOW), count, WINDOW):
        made[at] = floor + draw.randrange(ALLOWANCE)
    return made


jitters = st.sampled_from([200_000, 2 * MS, 30 * MS, 90 * MS])
rates = st.floats(-400e-6, 400e-6)
seeds = st.integers(0, 1 << 32)


@settings(max_examples=20, deadline=None)
@given(seeds, jitters, rates, st.integers(20, 300))
def test_a_steady_guest_has_no_faults_and_its_rate_is_within_its_bounds(
    seed: int, jitter: int, rate: float, count: int
) -> None:
    report = checked(MadeUp(delays(seed, count, jitter), rate).lines())
    assert report.faults == []
    assert report.finished
    assert report.samples == count
    measured = [each for each in report.rates if each.ppm is not None]
    assert len(measured) == len(ALL) or count < 60 or jitter > 2 * MS
    for each in measured:
        assert each.ppm is not None
        assert each.ppm.low <= rate * 1e6 <= each.ppm.high
        # The bounds say something: about 2 x (allowance + spread) over the length of the run.
        assert each.ppm.radius <= (8 if jitter <= 2 * MS else 24) * ALLOWANCE / each.seconds / 1000


@settings(max_examples=30, deadline=None)
@given(
    seeds,
    jitters,
    rates,
    st.integers(60, 120),
    st.one_of(st.integers(12 * MS, 90_000 * MS), st.integers(-90_000 * MS, -12 * MS)),
)
def test_a_step_is_reported_once_within_its_bounds(
    seed: int, jitter: int, rate: float, at: int, step: int
) -> None:
    # Where few lines are on time, a small step cannot be told from delays, and is not claimed.
    assume(jitter <= 2 * MS or abs(step) > 50 * MS)
    report = checked(MadeUp(delays(seed, at + 60, jitter), rate, {at: step}).lines())
    (found,) = report.steps
    assert sorted(found.clocks) == sorted(ALL)
    assert found.ns.low <= step <= found.ns.high
    assert found.ns.radius <= (6 if jitter <= 2 * MS else 16) * ALLOWANCE
    assert found.after_seq < at <= found.before_seq
    assert found.seconds == pytest.approx(at * INTERVAL / 1e9, abs=2)
    assert found.before_seq - found.after_seq <= (6 if jitter <= 2 * MS else 15) * WINDOW
    assert report.faults[0] == "1 step against the host's clock"


@settings(max_examples=12, deadline=None)
@given(seeds, st.lists(st.integers(60 * MS, 4_000 * MS), min_size=2, max_size=5), st.booleans())
def test_every_step_of_several_is_reported(seed: int, sizes: list[int], back: bool) -> None:
    steps = {60 * (n + 1): -size if back else size for n, size in enumerate(sizes)}
    report = checked(MadeUp(delays(seed, 60 * (len(sizes) + 1), 20 * MS), 3e-6, steps).lines())
    assert len(report.steps) == len(steps)
    for found, (at, step) in zip(report.steps, steps.items(), strict=True):
        assert found.after_seq < at <= found.before_seq
        assert found.ns.low <= step <= found.ns.high


@settings(max_examples=12, deadline=None)
@given(seeds, st.integers(30, 100), st.integers(1, 60), st.integers(100 * MS, 8_000 * MS))
def test_lines_that_are_held_up_are_no_step(seed: int, at: int, lines: int, longest: int) -> None:
    """The console stops for a while; then everything that waited comes at once."""
    late = delays(seed, at + 100, 2 * MS)
    for n in range(lines):
        late[at + n] = max(late[at + n], longest - n * INTERVAL)
    report = checked(MadeUp(late).lines())
    assert report.steps == []
    assert report.disagreements == []
    assert bool(report.silences) == any(fault.endswith("without a line for 2 s") for fault in report.faults)


def test_a_console_that_falls_behind_and_catches_up_is_not_called_a_step() -> None:
    late = delays(1, 300, 1 * MS)
    for n in range(100, 200):
        late[n] += 500 * MS
    report = checked(MadeUp(late).lines())
    assert report.steps == []
    (held,) = report.held
    assert held.since == pytest.approx(100 * INTERVAL, abs=2 * 10**9)
    assert held.until == pytest.approx(200 * INTERVAL, abs=2 * 10**9)
    assert held.by == pytest.approx(500 * MS, abs=10 * MS)


@pytest.mark.parametrize("clock", ["raw", "boot", "real", "tb"])
@pytest.mark.parametrize("step", [50_000_000, -50_000_000])
def test_a_clock_that_leaves_the_others_is_named(clock: str, step: int) -> None:
    report = checked(MadeUp(delays(2, 150, 5 * MS), 0.0, {70: step}, (clock,)).lines())
    (found,) = report.disagreements
    assert (found.clock, found.seq) == (clock, 70)
    assert abs(found.ns - step) <= found.bound_ns
    (stepped,) = report.steps
    assert stepped.clocks == (clock,)


def test_a_rate_beyond_the_limit_is_a_fault() -> None:
    lines = list(MadeUp(delays(3, 400, 2 * MS), 300e-6).lines())
    assert checked(lines).faults == []
    assert checked(lines, Limits(rate_ppm=100)).faults == ["5 rates beyond 100 ppm"]


def test_timers_and_readings_that_the_guest_complains_of() -> None:
    counts = {
        30: {"late": -5_000},
        40: {"late": 600 * MS},
        50: {"lost": 1},
        51: {"lost": 3, "skipped": 7},
        60: {"lost": 3, "backs": 2},
    }
    lines = list(MadeUp(delays(4, 61, 2 * MS), counts=counts).lines())
    lines.insert(-1, (sealed("cc1 back seq=60 cpu=1 clock=mono via=vdso from=900 to=850"), 60 * INTERVAL))
    report = checked(lines)
    assert report.faults == [
        "2 readings went back",
        "1 timer fired early",
        "3 timers did not fire",
        "1 timer fired later than 500 ms",
    ]
    assert (report.timers.worst_late_ns, report.timers.worst_seq) == (600 * MS, 40)
    assert report.back_lines[0].via == "vdso"


def test_what_the_kernel_says_about_time_is_a_fault_and_safe_to_print() -> None:
    lines = list(MadeUp(delays(5, 40, 2 * MS)).lines())
    said = [
        b"[   29.1] watchdog: BUG: soft lockup - CPU#0 stuck for 29s! [\x1b[31mswapper/0:1]",
        b"[   30.0] rcu: INFO: rcu_sched self-detected stall on CPU",
        b"[   31.0] hrtimer: interrupt took 23456789 ns",
        b"[   32.0] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable",
        b"[   33.0] watchdog: CPU 1 detected hard LOCKUP on other CPUs 0",
        b"[    1.0] clocksource: timebase: mask: 0xffffffffffffffff max_cycles: 0x761537d007",
    ]
    lines[20:20] = [(line, 10 * INTERVAL) for line in said]
    report = checked(lines)
    assert list(report.complaints.values()) == [1] * 5
    assert report.faults == ["5 complaints of the kernel"]
    assert all(each.text.isprintable() for each in report.kernel_lines)


def test_torn_and_missing_lines_are_counted_and_change_nothing() -> None:
    lines = list(MadeUp(delays(6, 200, 2 * MS)).lines())
    message = b"[    5.0] a message of the kernel's"
    half = len(lines[50][0]) // 2
    lines[50] = (lines[50][0][:half] + message, lines[50][1])
    lines[90] = (message + lines[90][0], lines[90][1])
    del lines[120:125]
    report = checked(lines)
    assert (report.torn, report.missing, report.faults) == (1, 6, [])


def test_a_guest_that_begins_anew_is_told() -> None:
    lines = list(MadeUp(delays(7, 100, 2 * MS)).lines())
    again = [(text, at + 10_500 * MS) for text, at in MadeUp(delays(8, 100, 2 * MS)).lines()]
    report = checked([*lines[:-1], *again])
    assert report.faults == ["1 unexpected start of the guest's half"]
    assert report.steps == []


def test_without_times_of_arrival_the_guests_own_findings_are_left() -> None:
    counts = {60: {"backs": 2}}
    made = MadeUp(delays(9, 80, 2 * MS), 0.0, {50: 10**9}, ("tb",), counts)
    report = checked((text, None) for text, _ in made.lines())
    assert (report.seconds, report.rates, report.steps) == (None, [], [])
    assert len(report.disagreements) == 1
    assert report.backs == 2


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_nothing_on_a_console_breaks_the_check(data: st.DataObject) -> None:
    """Damaged and hostile lines, some with right checksums: numbers out of all bounds, missing fields."""
    check = ClockCheck()
    made = [text for text, _ in MadeUp([0] * 12).lines()]
    numbers = st.one_of(st.integers(-(1 << 66), 1 << 66), st.sampled_from([0, 1, (1 << 64) - 1, 1 << 63]))
    at = 0
    for text in made * 2:
        line = text
        match data.draw(st.integers(0, 3)):
            case 0:
                fields = line.rsplit(b" sum=", 1)[0]
                value = str(data.draw(numbers)).encode()
                places = [found.span(1) for found in re.finditer(rb"=(-?\d+)", fields)]
                begin, end = data.draw(st.sampled_from(places))
                fields = fields[:begin] + value + fields[end:]
                line = fields + b" sum=%08x" % zlib.crc32(fields)
            case 1:
                line = data.draw(st.binary(max_size=60)) + line
            case 2:
                line = b"cc1 " + data.draw(st.binary(max_size=60))
                line += b" sum=%08x" % zlib.crc32(line)
        at += data.draw(st.integers(0, 10**9))
        check.line(line, at)
    report = check.report()
    json.dumps(report.as_json())
    assert report.samples <= 2 * len(made)


def test_text_of_the_console_is_shown_without_control_characters() -> None:
    assert shown(b"\x1b]0;title\x07 soft\x00 lockup\x9b31m \xe2\x80\xae") == "�]0;title� soft� lockup�31m �"
    assert len(shown(b"a" * 5000)) == 200
