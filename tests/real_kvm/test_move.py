"""A guest moves from the embedded hypervisor into a real kernel's, runs there, and moves back: its own check
of time and memory passes at every stage, and each move did to its clock what the move stated, no more.

The truth is this machine's monotonic clock. The clock of the machine inside is QEMU's emulation of a
timebase: how it follows is measured here, and what is not known of it is taken into the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chronovisor.cli.demo.side import Side
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import FREQUENCY, signed64
from real_kvm.machine import Machine
from real_kvm.reports import check_report
from real_kvm.traveller import OUTSIDE, PORT

pytestmark = pytest.mark.real_kvm

ORIGIN = 0x0123_4567_89AB_CDEF
OFFSET = 5 << 40
ROUND_TRIPS = 3
LOOKS = 30
DOWNTIME = 10.0
"""Seconds that a guest may stand still for a move out of the emulated machine."""


@dataclass(frozen=True)
class ClockInside:
    """How far the clock inside is ahead of this machine's, in ticks: between `least` and `most`."""

    least: int
    most: int
    at: int
    """The tick of this machine's clock, roughly."""


def look(machine: Machine) -> ClockInside:
    """Compare the two clocks: the narrowest of many exchanges."""
    source = RealTime()
    exchanges = []
    for _ in range(LOOKS):
        before = source.ticks()
        inside = machine.call("real_kvm.traveller:ticks")
        after = source.ticks()
        exchanges.append(ClockInside(inside - after, inside - before, after))
    # All of them hold at once, where the clock inside goes as this machine's does.
    return ClockInside(
        max(e.least for e in exchanges), min(e.most for e in exchanges), exchanges[len(exchanges) // 2].at
    )


@dataclass(frozen=True)
class Reading:
    """A timebase that the guest read, and between which ticks of this machine's clock."""

    timebase: int
    before: int
    after: int

    def check_move(self, later: Reading, record: dict[str, int], unknown: int) -> int:
        """Compare the guest's time with the time that passed; the middle of what the error can have been."""
        advance = signed64(later.timebase - self.timebase)
        least, most = advance - (later.after - self.before), advance - (later.before - self.after)
        bound = record["error_bound_ticks"] + unknown
        assert least <= bound, (least, most, record)
        assert most >= -bound, (least, most, record)
        return (least + most) // 2


class Pair:
    """Both sides of the moves."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.outside = Side()
        self.clock = look(machine)

    def inside(self, what: str, **arguments: Any) -> Any:
        return self.machine.call("real_kvm.traveller:do", what, arguments)

    def go_inside(self) -> dict[str, int]:
        self.inside("expect", origin=0, address=f"tcp:0.0.0.0:{PORT}", insecure=True)
        self.outside.send(f"tcp:127.0.0.1:{self.machine.ports[PORT]}")
        record: dict[str, int] = self.inside("taken")["record"]
        return record

    def come_back(self) -> dict[str, int]:
        port = self.outside.expect(ORIGIN).rsplit(":", 1)[1]
        # Emulated, a page of 64 KiB takes as long as many do elsewhere: time is not what is compared here.
        self.inside("send", address=f"tcp:{OUTSIDE}:{port}", insecure=True, downtime=DOWNTIME)
        record: dict[str, int] = self.outside.taken()["record"]
        return record

    def read_outside(self) -> Reading:
        seen = self.outside.read()
        return Reading(seen["timebase"], seen["before"], seen["after"])

    def read_inside(self) -> Reading:
        seen = self.inside("read")
        return Reading(seen["timebase"], seen["before"] - self.clock.most, seen["after"] - self.clock.least)


@pytest.fixture(scope="module")
def pair(machine: Machine) -> Iterator[Pair]:
    machine.call("real_kvm.traveller:set_up")
    opened = Pair(machine)
    yield opened
    opened.inside("close")
    opened.outside.close()


def test_a_guest_moves_into_the_kernel_and_back(pair: Pair) -> None:
    pair.outside.rehearse()
    pair.outside.boot(ORIGIN, OFFSET, filled=1 << 20)
    errors = []
    begun = pair.read_outside()
    was = begun
    for _ in range(ROUND_TRIPS):
        for go, read, report in (
            (pair.go_inside, pair.read_inside, lambda: pair.inside("report")),
            (pair.come_back, pair.read_outside, lambda: pair.outside.report()),
        ):
            record = go()
            now = read()
            # A clock inside that moved since it was compared would show at the end: see below.
            errors.append((was.check_move(now, record, 0), record["error_bound_ticks"]))
            check_report(report())
            was = read()
    # The clock inside, after all that: at a rate as this machine's, it is where it was.
    later = look(pair.machine)
    passed = later.at - pair.clock.at
    moved = max(0, later.least - pair.clock.most, pair.clock.least - later.most)
    unsure = (later.most - later.least) + (pair.clock.most - pair.clock.least)
    ms = 1000 / FREQUENCY
    print()
    for error, bound in errors:
        print(f"  a move's error {error * ms:+8.3f} ms, stated: at most {bound * ms:.3f} ms either way")
    print(
        f"  the clock inside moved by at least {moved * ms:.3f} ms in {passed / FREQUENCY:.1f} s against "
        f"this machine's, known to {unsure * ms:.3f} ms: {1e6 * moved / passed:.0f} to "
        f"{1e6 * (moved + unsure) / passed:.0f} millionths"
    )
    assert moved <= 1e-3 * passed
    # All moves together: the guest is within the limit of where it would be without, as moves promise.
    advance = signed64(was.timebase - begun.timebase)
    away = advance - (was.after - begun.before)
    measured = sum(bound for _, bound in errors)
    assert abs(away) <= (1 << 23) + measured
