"""P9 with real processes: one side of a move is killed (kill -9) at each of its messages, and in between."""

from __future__ import annotations

import random
import threading
import time
from itertools import cycle
from typing import Final

import pytest
from processes import Fault, Machine, Process, keeps_its_timers
from soak import share

from chronovisor.cli.status import ExitStatus
from chronovisor.migration.address import parse_address

LIMIT: Final = ("--time-limit", "60")
MOMENTS: Final = [
    (True, "Offer"),
    (False, "Accepted"),
    (True, "memory"),
    (True, "Round"),
    (False, "Received"),
    (True, "State"),
    (False, "Ready"),
    (True, "Commit"),
    (False, "Acknowledged"),
]
"""Who says it, and what: it is held back, and then one side is killed."""
SAMPLE: Final = 5
WHOLE: Final = 54
SOAK: Final = max(4 * SAMPLE, share(WHOLE))


class Course:
    """A guest and the process that it is in, as long as that is not killed."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.chance = random.Random(seed)
        self.number = 0
        self.name = ""
        self.here: Process | None = None
        self.outcomes: set[str] = set()

    def begin(self) -> tuple[Process, Process, str]:
        """Have a guest run here, and another process wait for it."""
        self.number += 1
        if self.here is None:
            self.name = f"guest-{self.number}"
            self.here = self.machine.run(self.name)
        there, address = self.receive()
        return self.here, there, address

    def receive(self) -> tuple[Process, str]:
        self.number += 1
        return self.machine.receive(f"there-{self.number}", *LIMIT)

    def kill_at(self, from_source: bool, at: str, source_dies: bool) -> None:
        here, there, address = self.begin()
        way = self.machine.way(address, Fault(from_source, at, "silence"))
        doomed = here if source_dies else there
        killer = threading.Thread(target=lambda: (way.struck.wait(60), doomed.kill()))
        killer.start()
        status, _, _ = self.machine.does("migrate", self.name, str(way.address), *LIMIT)
        killer.join()
        if source_dies:
            assert status == ExitStatus.USAGE
            if at == "Offer":
                # It never heard of the guest, and takes the next one.
                assert self.machine.state(f"there-{self.number}") == "waiting"
                there.kill()
                self.here = None
                return
            self.without_source(there, runs=at == "Acknowledged")
        elif at in {"Commit", "Acknowledged"}:
            assert status == ExitStatus.UNDECIDED
            self.outcomes.add("undecided")
            assert self.machine.state(self.name) == "undecided"
            other, address = self.receive()
            way.target = parse_address(address)
            self.resolve(here, gone=at == "Acknowledged")
            other.kill()
        else:
            assert status == ExitStatus.FAILED
            self.stays(here)

    def kill_in_between(self, source_dies: bool) -> None:
        """At any moment; what is found then is one of what P9 allows."""
        here, there, address = self.begin()
        doomed = here if source_dies else there
        delay = self.chance.random() * 0.12
        killer = threading.Thread(target=lambda: (time.sleep(delay), doomed.kill()))
        killer.start()
        status, _, _ = self.machine.does("migrate", self.name, address, *LIMIT)
        killer.join()
        if source_dies:
            waits = {guest["name"]: guest["state"] for guest in self.machine.asks("ps")}
            runs = waits.get(f"there-{self.number}") == "running"
            if "waiting" in waits.values():
                # It had no offer yet, or gives one up now.
                there.kill()
                self.here = None
                return
            self.without_source(there, runs)
        elif status == ExitStatus.UNDECIDED:
            other, _ = self.receive()
            # At another port: it is asked in vain, and its operator knows that the other process is no more.
            assert self.machine.does("migrate", self.name, "--resolve")[0] == ExitStatus.UNDECIDED
            assert self.machine.does("migrate", self.name, "--force-resume")[0] == ExitStatus.OK
            other.kill()
            self.stays(here)
        elif status == ExitStatus.OK:
            # It went, and was killed where it had gone to.
            assert here.ends() == 0
            self.here = None
        else:
            assert status == ExitStatus.FAILED
            self.stays(here)

    def without_source(self, there: Process, runs: bool) -> None:
        """The guest's process is no more: it runs at the destination, or nowhere."""
        if not runs:
            self.outcomes.add("gone with the source")
            assert "the guest does not run here" in there.error_line()
            there.kill()
            self.here = None
            return
        self.outcomes.add("went")
        self.here, self.name = there, f"there-{self.number}"
        self.check()

    def resolve(self, here: Process, gone: bool) -> None:
        status, _, _ = self.machine.does("migrate", self.name, "--resolve")
        if gone:
            self.outcomes.add("gone with the destination")
            assert status == ExitStatus.OK
            assert here.ends() == 0
            self.here = None
        else:
            assert status == ExitStatus.FAILED
            self.stays(here)

    def stays(self, here: Process) -> None:
        self.outcomes.add("stayed")
        assert self.machine.state(self.name) == "running"
        assert self.here is here
        self.check()

    def check(self) -> None:
        """Have the guest say what it found of its time and memory."""
        assert self.here is not None
        self.here.type("r")
        line = self.here.line()
        assert " back=0 " in line
        assert keeps_its_timers(line)
        assert line.endswith("memory=intact\n")


def campaign(course: Course, count: int) -> None:
    everywhere = [(*moment, dies) for dies in (True, False) for moment in MOMENTS]
    course.chance.shuffle(everywhere)
    for number, (from_source, at, source_dies) in zip(range(count), cycle(everywhere), strict=False):
        try:
            if number >= len(everywhere) and number % 2:
                course.kill_in_between(source_dies)
            else:
                course.kill_at(from_source, at, source_dies)
        except BaseException as error:
            error.add_note(f"case {number}: {at}, and the {'source' if source_dies else 'destination'} dies")
            raise


def test_one_side_is_killed(machine: Machine) -> None:
    # A seed whose first cases have all these outcomes.
    course = Course(machine, 10)
    campaign(course, SAMPLE)
    assert course.outcomes >= {"stayed", "went", "gone with the source", "undecided"}


@pytest.mark.soak
def test_one_side_is_killed_very_often(machine: Machine) -> None:
    course = Course(machine, 6)
    campaign(course, SOAK)
    assert course.outcomes >= {"stayed", "went", "gone with the source", "gone with the destination"}
