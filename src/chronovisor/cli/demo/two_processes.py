"""The journey of the third act on the machine's real clock: moves go over TCP, from process to process."""

from __future__ import annotations

import random
import time

from chronovisor.cli.demo.far_side import FarSide
from chronovisor.cli.demo.side import Side
from chronovisor.cli.demo.travel import ROUTE, Passage, Travelled, choose_offset, choose_origins
from chronovisor.cli.demo.watched import GuestReport, StampedReading
from chronovisor.migration.errors import MoveError
from chronovisor.report.hops import Hop, Journey
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GuestTime, Ticks

STAY = 0.025
"""Seconds that the guest runs on each host, at least; at most twice that."""


class TwoProcesses:
    """This process and a second one, which gets ready to run guests from the beginning.

    A context: the second process ends with it.
    """

    def __init__(self) -> None:
        self._near = Side()
        self._far = FarSide()
        self._far.ask("rehearse")

    def __enter__(self) -> TwoProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._near.close()
        finally:
            self._far.__exit__()

    def travel(self, chance: random.Random) -> Travelled:
        """Make the journey; FarSideError, MoveError or SilentGuestError if it cannot be finished."""
        # The second process has compiled by then whatever was not, so this one only loads it.
        self._far.answer()
        self._near.rehearse()
        near, far = self._near, self._far
        origins = choose_origins(chance)
        born = near.boot(origin=origins["home"], offset=choose_offset(chance))
        passages: list[Passage] = []
        readings: list[StampedReading] = []
        here = "home"
        for number, there in enumerate(ROUTE):
            source, destination = (far, near) if number % 2 else (near, far)
            time.sleep(STAY * (1 + chance.random()))
            readings.append(StampedReading(**source.do("read")))
            passages.append(move_over(source, destination, here, there, origins[there]))
            here = there
        time.sleep(STAY)
        readings.append(StampedReading(**near.read()))
        report = GuestReport(**near.report())
        assert near.guest is not None
        ideal = near.guest.ideal
        journey = Journey(
            [passage.hop for passage in passages],
            origins,
            "home",
            born["tick"],
            GuestTime(born["timebase"]),
            RealTime().ticks(),
        )
        near.close()
        # The guest runs until it is stopped.
        paused = [Ticks(0)] * len(passages)
        return Travelled(journey, passages, report, paused, readings, ideal, exact=False)


def move_over(
    source: Side | FarSide, destination: Side | FarSide, here: str, there: str, origin: int
) -> Passage:
    """Move the guest from side to side, onto a host of this origin.

    The time that the hop says to have elapsed is the machine's own clock's, from the source's stop to the
    moment from which the destination let it run: no part of it comes from what the two told each other.
    MoveError if they do not agree on the record.
    """
    address = destination.do("expect", origin=origin)
    gone = source.do("send", address=address)
    come = destination.do("taken")
    if gone["record"] != come["record"]:
        raise MoveError(f"the two sides have different records: {gone['record']} and {come['record']}")
    elapsed = Ticks(come["resumes_at"] - gone["stopped_at"])
    record = MoveRecord(**come["record"]).with_true_elapsed(elapsed)
    return Passage(
        Hop(here, there, record, gone["stopped_at"]),
        Ticks(come["round_trip"]),
        (gone["deadline"], come["deadline"]),
    )
