"""P9: whatever fails, at most one side runs, and the guest itself finds its time and memory in order.

One guest makes many moves, each over a way with one fault, of all kinds, at every message and at random
bytes; in virtual time, and in real time while rounds of its memory are under way.
"""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from faulty_channel import KINDS, Fault, FaultyChannel

from chronovisor.machine.host import Host
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.migration.messages import Aborted, Acknowledged
from chronovisor.migration.outcomes import Outcome, RecordedOutcomes
from chronovisor.migration.source import Source
from chronovisor.migration.stream import Header
from chronovisor.timebase.clock import RealTime, TickSource, VirtualTime
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Ticks

SAMPLE: Final = 120
MESSAGES: Final = 5
"""Of a source in virtual time: Offer, State and COMMIT, and one more that never comes; rounds are others."""
MS: Final = 512_000
ENDS: Final = re.compile(r"memory=[a-zA-Z]+\n")
DISK_FULL: Final = "disk full"
"""A fault that is none of the way: nothing can be written down at the destination any more."""


@dataclass(frozen=True)
class Case:
    """A move that is to go wrong somewhere."""

    number: int
    fault: Fault
    full_from: int | None
    """The destination's write from which on its disk is full; None where it never is."""

    def __str__(self) -> str:
        side = "source" if self.fault.from_source else "destination"
        kind = self.fault.kind if self.full_from is None else f"{DISK_FULL} at write {self.full_from}"
        return f"case {self.number}: {kind}, message {self.fault.at} of the {side}, byte {self.fault.byte}"


class FillingOutcomes(RecordedOutcomes):
    """On a disk that is full from some write on."""

    def __init__(self, directory: Path, full_from: int | None) -> None:
        super().__init__(directory)
        self.full_from = full_from
        self._writes = 0

    def offered(self, move: str) -> None:
        self._need_room()
        super().offered(move)

    def _write(self, path: Path, outcome: Outcome) -> None:  # type: ignore[override]
        # As a full disk does it: the file is made, and stays empty.
        path.touch()
        self._need_room()
        super()._write(path, outcome)

    def _need_room(self) -> None:
        self._writes += 1
        if self.full_from is not None and self._writes > self.full_from:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cases(count: int, seed: int) -> Iterator[Case]:
    """Every kind at every message of either direction first, then by chance."""
    chance = random.Random(seed)
    number = 0
    everywhere = [(side, at, kind) for kind in KINDS for side in (True, False) for at in range(MESSAGES)]
    chance.shuffle(everywhere)
    while number < count:
        full_from = None
        if number < len(everywhere):
            from_source, at, kind = everywhere[number]
        else:
            from_source, at, kind = (
                chance.random() < 0.5,
                chance.randrange(MESSAGES + 2),
                chance.choice(KINDS),
            )
            if chance.random() < 0.1:
                full_from = chance.randrange(3)
        fault = Fault(from_source, at, kind, chance.randrange(1 << 20), chance.randrange(5000 * MS))
        yield Case(number, fault, full_from)
        number += 1


class Traveller:
    """The guest, wherever it is, and the clock of all its hosts."""

    def __init__(self, clock: TickSource, directory: Path, seed: int) -> None:
        self.clock = clock
        self.directory = directory
        self.chance = random.Random(seed)
        self.reports = 0
        self.outcomes: dict[str, int] = {}
        self.live_rounds = 0
        self.boot()

    def boot(self) -> None:
        self.host = self._new_host()
        self.guest = self.host.boot("demo-le.elf", memory="1M", tb_offset=self.chance.getrandbits(63))
        self.reports = 0
        assert self.guest.run_until("watching")
        if not self.clock.is_virtual:
            self.guest.resume()

    def _new_host(self) -> Host:
        return Host(clock=self.clock, tb_origin=self.chance.getrandbits(64), engine="concrete")

    def pass_time(self, ticks: int) -> None:
        if self.clock.is_virtual:
            self.clock.sleep_until(self.clock.ticks() + ticks)

    def move(self, case: Case) -> None:
        """Make one move, and hold it to P9."""
        ran = self.guest.running
        before = self.guest.history
        away = self._new_host()
        outcomes = FillingOutcomes(self.directory, case.full_from)
        destination = Destination(away, self.guest.console, outcomes)
        channel = FaultyChannel(destination, outcomes, Header.of(self.guest), case.fault, self.pass_time)
        source = Source(self.guest, channel)
        try:
            record = self._attempt(source.give_away, destination, channel, outcomes, source.move)
        except MoveError as error:
            one_line = "\n" not in str(error)
            assert one_line
            destination.give_up("the source gave it up")
            self._stayed(case, destination, away, outcomes, source.move, ran)
            assert self.guest.history == before
            away.close()
        else:
            self._went(destination, away, outcomes, source.move, record, ran)
        self.live_rounds += channel.names.count("Round")
        self.check()

    def _attempt(
        self,
        attempt: Callable[[], object],
        destination: Destination,
        channel: FaultyChannel,
        outcomes: FillingOutcomes,
        move: str,
    ) -> MoveRecord:
        """Give away, and ask until there is an answer; the guest is paused all the while."""
        for _ in range(3):
            try:
                report = attempt()
                return report.record  # type: ignore[attr-defined, no-any-return]
            except MoveUndecidedError as undecided:
                assert not self.guest.running
                self._count("undecided")
                attempt = undecided.ask
                channel.mend()
                outcomes.full_from = None
        raise AssertionError("asked on a way that works, the destination does not decide")

    def _stayed(
        self,
        case: Case,
        destination: Destination,
        away: Host,
        outcomes: RecordedOutcomes,
        move: str,
        ran: bool,
    ) -> None:
        """The guest is the source's: it goes on there as before, and the destination never runs it."""
        self._count("stayed")
        assert self.guest.end is None
        assert self.guest.running is ran
        assert not destination.committed
        assert away.guests == []
        with pytest.raises(MoveError):
            destination.start(running=True)
        outcomes.full_from = None  # type: ignore[attr-defined]
        assert not isinstance(outcomes.ask(move), Acknowledged)

    def _went(
        self,
        destination: Destination,
        away: Host,
        outcomes: RecordedOutcomes,
        move: str,
        record: MoveRecord,
        ran: bool,
    ) -> None:
        """The guest is the destination's: paused for good at the source, and what is written down says so."""
        self._count("went")
        assert not self.guest.running
        assert destination.committed
        assert away.guests == [destination.guest]
        assert outcomes.ask(move) == Acknowledged(record)
        assert isinstance(outcomes.settle(move, Aborted("too late")), Acknowledged)
        assert abs(record.rounding_ticks) <= 1 << 23
        console = self.guest.console
        self.guest.leave("elsewhere")
        self.host.close()
        self.host = away
        self.guest = destination.start(running=ran)
        assert self.guest.console is console
        assert self.guest.history.hops[-1].record == record

    def check(self) -> None:
        """Have the guest say what it found of its time and memory."""
        self.guest.console.type("r")
        self.reports += 1
        assert self.guest.run_until(
            lambda text: len(ENDS.findall(text)) >= self.reports, Ticks(20_000 * MS)
        ), "the guest is silent"
        line = self.guest.console_text.splitlines()[-1]
        assert line.endswith("memory=intact")
        assert " back=0 " in line
        assert " back_between=0 " in line
        assert " lost=0 " in line
        assert " outside=0 " in line
        if not self.clock.is_virtual:
            self.guest.resume()

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


def campaign(clock: TickSource, directory: Path, count: int, seed: int) -> Traveller:
    traveller = Traveller(clock, directory, seed)
    for case in cases(count, seed):
        if case.number % 50 == 49:
            # So that what it printed does not grow for ever.
            traveller.host.close()
            traveller.boot()
        try:
            traveller.move(case)
        except BaseException as error:
            error.add_note(str(case))
            raise
    traveller.host.close()
    return traveller


def test_faults_of_all_kinds_in_virtual_time(tmp_path: Path) -> None:
    travelled = campaign(VirtualTime(), tmp_path / "moves", SAMPLE * 3 // 4, 1)
    assert {path.suffix for path in (tmp_path / "moves").iterdir()} == {".offered", ".outcome"}
    # It did not merely fail, nor merely work.
    assert set(travelled.outcomes) == {"stayed", "went", "undecided"}


def test_faults_of_all_kinds_while_rounds_are_under_way(tmp_path: Path) -> None:
    travelled = campaign(RealTime(), tmp_path / "moves", SAMPLE // 4, 2)
    assert set(travelled.outcomes) == {"stayed", "went", "undecided"}
    assert travelled.live_rounds > SAMPLE // 8
