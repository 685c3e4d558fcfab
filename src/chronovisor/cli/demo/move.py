"""The third act: a guest goes to and fro between hosts years apart, and keeps its time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from textwrap import fill

from rich.console import Group
from rich.text import Text

from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.watched import ENGINE, IMAGE, GuestReport, ask_for_report
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.report.hops import Hop, Journey
from chronovisor.report.table import milliseconds, move_table, years
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT, IdealInterval
from chronovisor.timebase.simple_rules import always_round_up
from chronovisor.timebase.types import FREQUENCY, GRANULE, LOW_MASK, MASK64, Offset, Ticks

YEAR = 31_557_600 * FREQUENCY
ROUTE = (
    "ahead",
    "home",
    "behind",
    "home",
    "ahead",
    "behind",
    "twin",
    "behind",
    "ahead",
    "home",
    "ahead",
    "home",
)
"""Where the guest goes, from home on. The twin of behind is years from it too, but in phase with it."""
STAY = Ticks.from_ns(12_000_000)
"""How long the guest runs on each host, at least."""
LAN = (Ticks.from_ns(50_000), Ticks.from_ns(500_000))
"""How long a message is under way, from and to; the one with the guest's state takes longer."""


@dataclass(frozen=True, slots=True)
class Travelled:
    """What came of the journey."""

    journey: Journey
    report: GuestReport
    paused: list[Ticks]
    """How long before the stop of each move the guest had been paused already."""
    ideal: IdealInterval
    """What the guest's last host knows of its lead over its ideal."""


def play(chance: random.Random) -> tuple[Act, Travelled]:
    """Move the guest along `ROUTE` between hosts of random origins; hear it, and see what the clock says."""
    act = Act("The move: to and fro between hosts whose timebases are years apart")
    travelled = _travel(chance)
    journey, report = travelled.journey, travelled.report
    act.shown.append(_origins(journey))
    act.shown.append(Group(move_table(journey.hops), _units()))
    act.shown.append(
        Text(fill(f"the guest says: {report.text}", 96, initial_indent="  ", subsequent_indent="    "))
    )
    _judge(act, travelled)
    act.json["hops"] = [{**hop.record.as_json()} for hop in journey.hops]
    return act, travelled


def _travel(chance: random.Random) -> Travelled:
    clock = VirtualTime()
    origins = _choose_origins(chance)
    hosts = {name: Host(tb_origin=origin, clock=clock, engine=ENGINE) for name, origin in origins.items()}
    guest = hosts["home"].boot(IMAGE, tb_offset=4 * YEAR + chance.getrandbits(40))
    begun, begun_time = clock.ticks(), guest.timebase()
    hops: list[Hop] = []
    paused: list[Ticks] = []
    here = "home"
    for there in ROUTE:
        guest.run_for(STAY + Ticks(chance.randrange(STAY.value)))
        paused_at = clock.ticks()
        lead = (guest.timebase() - (hosts[here].timebase + Offset(0))).value
        guest, record = move(guest, hosts[there], Link(_flights(chance)))
        # The moment of the stop by the one clock, from what the guest's timebase was then.
        stopped_at = (record.guest_tb_before - lead - origins[here]) & MASK64
        hops.append(Hop(here, there, record, stopped_at))
        paused.append(Ticks(stopped_at - paused_at))
        here = there
    guest.run_for(STAY)
    report = ask_for_report(guest)
    journey = Journey(hops, origins, "home", begun, begun_time, clock.ticks())
    guest.close()
    return Travelled(journey, report, paused, guest.ideal)


def _choose_origins(chance: random.Random) -> dict[str, int]:
    """Years apart, and of random phase but for the twin, whose low 24 bits are its sibling's."""
    origins = {
        name: chance.randrange(least * YEAR, (least + 1) * YEAR)
        for name, least in (("behind", 0), ("home", 2), ("ahead", 9))
    }
    twin = chance.randrange(6 * YEAR, 7 * YEAR)
    return {**origins, "twin": twin & ~LOW_MASK | origins["behind"] & LOW_MASK}


def _flights(chance: random.Random) -> list[Ticks]:
    """The flights of a move's messages: offer and answer, state and answer, COMMIT and answer."""
    flights = [Ticks(chance.randint(LAN[0].value, LAN[1].value)) for _ in range(6)]
    # Small guests and large ones, fast wires and slow ones: as likely to take 1 ms as 40.
    flights[2] = Ticks.from_ns(int(chance.choice((1, 3, 10, 40)) * chance.uniform(0.5, 1.2) * 1e6))
    return flights


def _judge(act: Act, travelled: Travelled) -> None:
    journey, report = travelled.journey, travelled.report
    hops = journey.hops
    records = [hop.record for hop in hops]
    act.check(
        "the two hosts might have a different timebase origin",
        f"{len(hops)} moves between hosts up to {years(_span(journey))} apart, ahead and behind",
        len(hops) >= 5 and _span(journey) > YEAR,
    )
    least = min(record.advance for record in records)
    act.check(
        "the timebase seen by the guest must not go backwards",
        f"the guest itself read it {report['readings']} times: {report.backward_steps} steps back, "
        f"smallest step {report['smallest_step']} ticks, largest {milliseconds(report['largest_step'])} ms",
        report.backward_steps == 0 and least >= Ticks(0),
    )
    # What the guest cannot read: its moves, and the little while before each in which it was stopped already.
    largest = max(record.advance + paused for record, paused in zip(records, travelled.paused, strict=True))
    own = Ticks(report["largest_step"]) - largest
    outside = sum(abs(record.error_ticks) > record.error_bound_ticks for record in records)
    act.check(
        "should go forwards only by a small amount corresponding to the time taken for the migration",
        f"{len(records) - outside} of {len(records)} errors within their bounds, none of which is over "
        f"{milliseconds(max(r.error_bound_ticks for r in records))} ms; the guest's largest step is "
        f"its longest move and {milliseconds(own.value)} ms of its own",
        not outside
        and max(r.error_bound_ticks for r in records) <= GRANULE + _ms(1)
        and Ticks(0) <= own <= Ticks(_ms(1)),
    )
    errors = [abs(error) for error in journey.errors()]
    rounded_up = journey.errors_by(always_round_up)[-1]
    limit = CLOCK_ERROR_LIMIT + Ticks(travelled.ideal.width.value // 2 + len(hops))
    act.check(
        "the roundings of many moves do not add up",
        f"never more than {milliseconds(max(errors).value)} ms from the ideal (the limit is "
        f"{milliseconds(CLOCK_ERROR_LIMIT.value)}, and what measuring adds); "
        f"always rounded up, the same moves would end {milliseconds(rounded_up.value)} ms off",
        max(errors) <= limit,
        beyond=True,
    )
    in_phase = [r for r in records if (r.from_origin - r.to_origin) % GRANULE == 0]
    worst = max((abs(r.error_ticks) for r in in_phase), default=GRANULE)
    act.check(
        "in phase nothing is rounded",
        f"{len(in_phase)} moves between hosts in phase: at most {milliseconds(worst)} ms off, by measuring",
        worst <= _ms(1),
        beyond=True,
    )
    act.check(
        "no timer is lost, early or late",
        f"of {report['expected']} decrementer interrupts {report['taken']} taken, {report['early']} early, "
        f"{report['late']} late, {report['lost']} lost",
        report["expected"] == report["taken"] > 0
        and not (report["early"] or report["late"] or report["lost"]),
        beyond=True,
    )
    act.check(
        "the dispatch trace log … is read directly by the guest",
        f"{report['entries']} entries of its dispatch trace log, {report['outside']} outside its readings; "
        f"its memory is {'intact' if report.memory_intact else 'CHANGED'}",
        report["entries"] > 0 and report["outside"] == 0 and report.memory_intact,
    )


def _span(journey: Journey) -> int:
    return max(journey.origins.values()) - min(journey.origins.values())


def _ms(count: int) -> int:
    return count * FREQUENCY // 1000


def _origins(journey: Journey) -> Text:
    home = journey.origins[journey.born_on]
    text = Text()
    values = {**journey.origins, "the guest": journey.born_time.value}
    for name, value in sorted(values.items(), key=lambda pair: pair[1]):
        away = value - home
        where = f"   {years(abs(away))} {'ahead of' if away > 0 else 'behind'} home" if away else ""
        text.append(f"  {name:<10}{value:#018x}{where}\n")
    text.rstrip()
    return text


def _units() -> Text:
    return Text(
        "  All in ms. error: the guest's advance less what really elapsed; bound: what the move promised\n"
        "  for it; rounding: its clock less its ideal; phase: of the one host's low 24 bits to the other's.",
        style="dim",
    )
