"""The journey of the third act: the guest's route, what is noted on the way, and the journey in virtual time,
which is the same to the tick each time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from chronovisor.cli.demo.watched import ENGINE, IMAGE, GuestReport, StampedReading, ask_for_report, stamp
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.report.hops import Hop, Journey
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.types import FREQUENCY, LOW_MASK, MASK64, Offset, Ticks

YEAR = 31_557_600 * FREQUENCY
ROUTE = (
    "ahead",
    "home",
    "twin",
    "behind",
    "ahead",
    "behind",
    "twin",
    "home",
    "ahead",
    "home",
    "twin",
    "behind",
)
"""The hosts to which the guest moves, from home on. Twin is years away from behind, but in phase with it. The
guest moves between these two three times, each time with another rounding.

Home and behind are on one side, ahead and twin on the other, and every move goes from side to side, so that
two processes can have two hosts each.
"""
STAY = Ticks.from_ns(12_000_000)
"""How long the guest runs on each host, at least."""
LAN = (Ticks.from_ns(50_000), Ticks.from_ns(500_000))
"""How long a message is under way, from and to; the one with the guest's state takes longer."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A move, with what its two sides know besides the record."""

    hop: Hop
    """The move with its true time, by the machine's one clock."""
    round_trip: Ticks
    """The round trip of the exchange that committed the move, as the destination measured it."""
    deadlines: tuple[int, int]
    """The deadlines of the guest's decrementer, in guest time: when it was stopped, and when it continued."""


@dataclass(frozen=True, slots=True)
class Travelled:
    """What came of the journey."""

    journey: Journey
    """Its hops are those of the passages."""
    passages: list[Passage]
    report: GuestReport
    paused: list[Ticks]
    """How long before the stop of each move the guest had been paused already."""
    readings: list[StampedReading]
    """The guest's own, one on each host, from the first on."""
    ideal: IdealInterval
    """What the guest's last host knows of its lead over its ideal."""
    exact: bool
    """Whether nothing but the guest and its moves takes time: so in virtual time, and on no real machine."""

    @property
    def way(self) -> str:
        """How the guest went, for people."""
        return "in virtual time" if self.exact else "from process to process over TCP"

    @property
    def clock(self) -> str:
        """What the truth about the time was taken from, for people."""
        return "the virtual clock" if self.exact else "this machine's clock"


Travel: TypeAlias = Callable[[random.Random], Travelled]
"""Makes the journey; what is left to chance is drawn from the generator."""


def in_virtual_time(chance: random.Random) -> Travelled:
    """Make the journey in this process, in virtual time, over links of random delay."""
    clock = VirtualTime()
    origins = choose_origins(chance)
    hosts = {name: Host(tb_origin=origin, clock=clock, engine=ENGINE) for name, origin in origins.items()}
    guest = hosts["home"].boot(IMAGE, tb_offset=choose_offset(chance))
    begun, begun_time = clock.ticks(), guest.timebase()
    passages: list[Passage] = []
    paused: list[Ticks] = []
    readings: list[StampedReading] = []
    here = "home"
    for there in ROUTE:
        guest.run_for(STAY + Ticks(chance.randrange(STAY.value)))
        readings.append(stamp(guest))
        paused_at = clock.ticks()
        lead = (guest.timebase() - (hosts[here].timebase + Offset(0))).value
        flights = _flights(chance)
        deadline = guest.get("DEC_EXPIRY")
        guest, record = move(guest, hosts[there], Link(flights))
        # The moment of the stop by the one clock, from what the guest's timebase was then.
        stopped_at = (record.guest_tb_before - lead - origins[here]) & MASK64
        hop = Hop(here, there, record, stopped_at)
        passages.append(Passage(hop, flights[5] + flights[6], (deadline, guest.get("DEC_EXPIRY"))))
        paused.append(Ticks(stopped_at - paused_at))
        here = there
    guest.run_for(STAY)
    readings.append(stamp(guest))
    report = ask_for_report(guest)
    journey = Journey([p.hop for p in passages], origins, "home", begun, begun_time, clock.ticks())
    guest.close()
    return Travelled(journey, passages, report, paused, readings, guest.ideal, exact=True)


def choose_origins(chance: random.Random) -> dict[str, int]:
    """Years apart, and of random phase but for the twin, whose low 24 bits are its sibling's."""
    origins = {
        name: chance.randrange(least * YEAR, (least + 1) * YEAR)
        for name, least in (("behind", 0), ("home", 2), ("ahead", 9))
    }
    twin = chance.randrange(6 * YEAR, 7 * YEAR)
    return {**origins, "twin": (twin & ~LOW_MASK) | (origins["behind"] & LOW_MASK)}


def choose_offset(chance: random.Random) -> int:
    """The offset that the guest is born with: it is years from all of its hosts."""
    return 4 * YEAR + chance.getrandbits(40)


def _flights(chance: random.Random) -> list[Ticks]:
    """The flights of a move's messages: offer and answer, state and READY, READY again, COMMIT and answer."""
    flights = [Ticks(chance.randint(LAN[0].value, LAN[1].value)) for _ in range(8)]
    # Small guests and large ones, fast wires and slow ones: as likely to take 1 ms as 40.
    flights[2] = Ticks.from_ns(int(chance.choice((1, 3, 10, 40)) * chance.uniform(0.5, 1.2) * 1e6))
    return flights
