"""The demonstration's moves over TCP: both sides in one process, and what becomes of the second process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chronovisor.cli.demo import move, side, two_processes
from chronovisor.cli.demo.far_side import FarSide, FarSideError
from chronovisor.cli.demo.side import Side
from chronovisor.cli.demo.travel import Travelled
from chronovisor.cli.demo.two_processes import TwoProcesses, move_over
from chronovisor.cli.demo.watched import StampedReading, stamp
from chronovisor.machine.guest import Guest
from chronovisor.migration.errors import MoveError
from chronovisor.report.hops import Hop
from chronovisor.timebase.types import GRANULE, MASK64, Ticks

COMMAND = [sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether the process is no more, a minute from now at the latest."""
    for _ in range(1200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    near, far = Side("concrete"), Side("concrete")
    yield near, far
    near.close()
    far.close()


def narrow_reading(side: Side) -> StampedReading:
    """A reading between two stamps that are closer than two offsets are: a busy machine may need some."""
    while True:
        reading = StampedReading(**side.read())
        if reading.after - reading.before < GRANULE:
            return reading


def test_a_move_from_side_to_side_and_back(sides: tuple[Side, Side]) -> None:
    near, far = sides
    born = near.boot(origin=1 << 60, offset=5 << 24, filled=1 << 20)
    assert born["timebase"] == (1 << 60) + born["tick"] + (5 << 24)
    assert StampedReading(**near.read()).fits((1 << 60) + (5 << 24))
    for source, destination, origin in ((near, far, 3), (far, near, MASK64)):
        passage = move_over(source, destination, "here", "there", origin)
        hop, round_trip = passage.hop, passage.round_trip
        assert passage.deadlines[0] == passage.deadlines[1]
        assert source.guest is None
        assert hop.record.to_origin == origin
        assert abs(hop.record.error_ticks) <= hop.record.error_bound_ticks
        assert hop.record.error_bound_ticks <= GRANULE + round_trip.value // 2 + 2
        lead = hop.record.guest_tb_after - hop.resumed_at & MASK64
        reading = narrow_reading(destination)
        assert reading.fits(lead)
        assert not reading.fits(lead + GRANULE)
        assert not reading.fits(lead - GRANULE)
        with pytest.raises(MoveError, match="not on this side"):
            source.read()
    assert near.report()["memory_intact"]


def test_a_reading_that_a_busy_machine_has_stretched_is_taken_again(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, _ = sides
    near.boot(origin=0, offset=0)
    taken: list[StampedReading] = []

    def stamped(guest: Guest, patience: Ticks) -> StampedReading:
        reading = stamp(guest, patience)
        taken.append(reading if taken else replace(reading, after=reading.after + GRANULE))
        return taken[-1]

    monkeypatch.setattr(side, "stamp", stamped)
    assert StampedReading(**near.read()) == taken[-1] != taken[0]


def test_a_guest_that_cannot_go_is_told(sides: tuple[Side, Side]) -> None:
    near, far = sides
    near.boot(origin=0, offset=0)
    address = far.expect(origin=1)
    far.close()
    with pytest.raises(MoveError, match="goes on here"):
        near.send(address)
    near.read()


@pytest.fixture(scope="module")
def travelled() -> Travelled:
    """The journey in two processes, whatever executes instructions here."""
    with TwoProcesses() as both:
        return both.travel(random.Random(3))


def judged(travelled: Travelled) -> list[str]:
    """What the third act finds to be wrong with a journey."""
    act, _ = move.play(random.Random(), lambda chance: travelled)
    return [check.clause for check in act.checks if not check.ok]


def with_hop(travelled: Travelled, number: int, hop: Hop) -> Travelled:
    hops = [*travelled.journey.hops]
    hops[number] = hop
    passages = [replace(p, hop=h) for p, h in zip(travelled.passages, hops, strict=True)]
    return replace(travelled, journey=replace(travelled.journey, hops=hops), passages=passages)


def test_a_sound_journey_is_well(travelled: Travelled) -> None:
    assert judged(travelled) == []


def test_a_guest_whose_time_is_not_what_the_record_says_is_found_out(travelled: Travelled) -> None:
    readings = [*travelled.readings]
    # By one offset, unless a busy machine read the clocks before and after it further apart than that.
    offsets = 1 + (readings[4].after - readings[4].before) // GRANULE
    readings[4] = replace(readings[4], timebase=readings[4].timebase + offsets * GRANULE)
    assert judged(replace(travelled, readings=readings)) == ["the records say what the guest reads"]


def test_a_time_that_did_not_pass_is_found_out(travelled: Travelled) -> None:
    """A move that took longer than its two sides together thought."""
    hop = travelled.journey.hops[3]
    longer = Ticks(hop.record.elapsed_ticks + 2 * hop.record.error_bound_ticks)
    found = judged(with_hop(travelled, 3, replace(hop, record=hop.record.with_true_elapsed(longer))))
    assert any("small amount corresponding to the time" in clause for clause in found)


def test_a_bound_that_promises_too_little_is_found_out(travelled: Travelled) -> None:
    hop = travelled.journey.hops[5]
    record = replace(hop.record, error_bound_ticks=2 * GRANULE)
    found = judged(with_hop(travelled, 5, replace(hop, record=record)))
    assert any("small amount corresponding to the time" in clause for clause in found)


def test_a_rounding_over_the_limit_is_found_out(travelled: Travelled) -> None:
    hop = travelled.journey.hops[11]
    record = replace(hop.record, rounding_ticks=-GRANULE // 2 - 1)
    assert judged(with_hop(travelled, 11, replace(hop, record=record))) == [
        "the roundings of many moves do not add up"
    ]


@pytest.mark.parametrize(("name", "count"), [("lost", 1), ("early", 1), ("taken", 5)])
def test_a_timer_that_is_lost_or_early_is_found_out(travelled: Travelled, name: str, count: int) -> None:
    report = replace(travelled.report, numbers={**travelled.report.numbers, name: count})
    assert judged(replace(travelled, report=report)) == ["no timer is lost or early"]


def test_a_deadline_that_a_move_shifts_is_found_out(travelled: Travelled) -> None:
    passages = [*travelled.passages]
    before, after = passages[7].deadlines
    passages[7] = replace(passages[7], deadlines=(before, after - 1))
    assert judged(replace(travelled, passages=passages)) == ["no timer is lost or early"]


def test_a_second_process_that_is_killed_ends_the_demonstration_in_a_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from chronovisor.cli import main

    make = TwoProcesses.__init__

    def make_and_kill(self: TwoProcesses) -> None:
        make(self)
        os.kill(self._far.pid, signal.SIGKILL)

    monkeypatch.setattr(two_processes.TwoProcesses, "__init__", make_and_kill)
    assert main(["demo", "--no-linux"]) == 1
    said = capfd.readouterr().err
    assert "came to a halt" in said
    assert "ended" in said
    assert said.count("\n") == 1


def test_a_far_side_says_what_went_wrong_there_and_ends_with_its_context() -> None:
    with FarSide("concrete") as far:
        with pytest.raises(FarSideError, match="not on this side"):
            far.do("read")
        address = far.do("expect", origin=1)
        assert address.startswith("tcp:127.0.0.1:")
        pid = far.pid
    assert gone(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_second_process_ends_with_the_first(number: signal.Signals, tmp_path: Path) -> None:
    first = subprocess.Popen(
        [*COMMAND, "demo", "--picture", str(tmp_path / "moves.png")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (seconds := children(first.pid)):
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(number)
    first.communicate(timeout=60)
    assert first.returncode == (130 if number is signal.SIGINT else -number)
    assert all(gone(pid) for pid in seconds)


def test_what_a_side_answers_fits_through_a_pipe(sides: tuple[Side, Side]) -> None:
    near, _ = sides
    born = near.do("boot", origin=0, offset=0)
    assert json.loads(json.dumps(born)) == born
