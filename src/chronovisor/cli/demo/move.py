"""The third act: a guest goes to and fro between hosts years apart, and keeps its time."""

from __future__ import annotations

import random
from textwrap import fill

from rich.console import Group
from rich.text import Text

from chronovisor.cli.demo.findings import Act
from chronovisor.cli.demo.travel import YEAR, Travel, Travelled
from chronovisor.report.hops import Journey
from chronovisor.report.table import milliseconds, move_table, years
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.simple_rules import always_round_up
from chronovisor.timebase.types import FREQUENCY, GRANULE, MASK64, Ticks


def play(chance: random.Random, travel: Travel) -> tuple[Act, Travelled]:
    """Have the guest make the journey between hosts of random origins; hear it, and look at the clock."""
    travelled = travel(chance)
    act = Act(f"The move: between hosts years apart, {travelled.way}")
    journey, report = travelled.journey, travelled.report
    act.shown.append(_origins(journey))
    act.shown.append(Group(move_table(journey.hops), _units()))
    act.shown.append(
        Text(fill(f"the guest says: {report.text}", 96, initial_indent="  ", subsequent_indent="    "))
    )
    _judge(act, travelled)
    act.json["hops"] = [{**hop.record.as_json()} for hop in journey.hops]
    return act, travelled


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
    _judge_errors(act, travelled)
    _judge_readings(act, travelled)
    errors = [abs(error) for error in journey.errors()]
    rounded_up = journey.errors_by(always_round_up)[-1]
    limit = CLOCK_ERROR_LIMIT + Ticks(travelled.ideal.width.value // 2 + len(hops))
    act.check(
        "the roundings of many moves do not add up",
        f"never more than {milliseconds(max(errors).value)} ms from the ideal (the limit is "
        f"{milliseconds(CLOCK_ERROR_LIMIT.value)}, and what measuring adds); "
        f"always rounded up, the same moves would end {milliseconds(rounded_up.value)} ms off",
        max(errors) <= limit
        and max(abs(record.rounding_ticks) for record in records) <= CLOCK_ERROR_LIMIT.value,
        beyond=True,
    )
    judge_in_phase(act, travelled)
    _judge_timers(act, travelled)
    act.check(
        "the dispatch trace log … is read directly by the guest",
        f"{report['entries']} entries of its dispatch trace log, {report['outside']} outside its readings; "
        f"its memory is {'intact' if report.memory_intact else 'CHANGED'}",
        report["entries"] > 0 and report["outside"] == 0 and report.memory_intact,
    )


def _judge_errors(act: Act, travelled: Travelled) -> None:
    records = [hop.record for hop in travelled.journey.hops]
    # What the guest cannot read: its moves, and the little while before each in which it was stopped already.
    largest = max(record.advance + paused for record, paused in zip(records, travelled.paused, strict=True))
    own = Ticks(travelled.report["largest_step"]) - largest
    outside = sum(abs(record.error_ticks) > record.error_bound_ticks for record in records)
    # A whole rounding, half the round trip, and the two ticks of readings in whole ones.
    loose = sum(
        passage.hop.record.error_bound_ticks > GRANULE + passage.round_trip.value // 2 + 2
        for passage in travelled.passages
    )
    act.check(
        "should go forwards only by a small amount corresponding to the time taken for the migration",
        f"{len(records) - outside} of {len(records)} errors within their bounds, none of which is over "
        f"{milliseconds(max(r.error_bound_ticks for r in records))} ms"
        f"{f', {loose} of which are too loose' if loose else ''}; the guest's largest step is "
        f"its longest move and {milliseconds(own.value)} ms of its own",
        not outside and not loose and own >= Ticks(0) and (not travelled.exact or own <= Ticks(_ms(1))),
    )


def _judge_readings(act: Act, travelled: Travelled) -> None:
    """What the guest read on each host, against what the records of the moves to it and from it say."""
    hops, readings = travelled.journey.hops, travelled.readings
    leads_before = [(hop.record.guest_tb_before - hop.stopped_at) & MASK64 for hop in hops]
    leads_after = [(hop.record.guest_tb_after - hop.resumed_at) & MASK64 for hop in hops]
    wrong = sum(not reading.fits(lead) for reading, lead in zip(readings, leads_before, strict=False))
    wrong += sum(not reading.fits(lead) for reading, lead in zip(readings[1:], leads_after, strict=True))
    wrong += sum(before != after for before, after in zip(leads_before[1:], leads_after, strict=False))
    widest = max(reading.after - reading.before for reading in readings)
    act.check(
        "the records say what the guest reads",
        f"{len(readings)} readings of its own, between looks at {travelled.clock} at most "
        f"{milliseconds(widest)} ms apart: {wrong or 'none'} elsewhere than the moves' records say",
        not wrong and len(readings) == len(hops) + 1,
        beyond=True,
    )


def judge_in_phase(act: Act, travelled: Travelled) -> None:
    """Check that moves between hosts in phase rounded nothing. Moves that took too long to measure show
    nothing: if no other move is left, the check fails.
    """
    found, worst, doubtful, lead = 0, 0, 0, 0
    for passage in travelled.passages:
        record = passage.hop.record
        if (record.from_origin - record.to_origin) % GRANULE == 0:
            found += 1
            # If the time is known no better than this, another multiple of 2^24 may look nearest.
            if abs(lead) + passage.round_trip.value // 2 + 2 >= GRANULE // 2:
                doubtful += 1
            else:
                worst = max(worst, abs(record.error_ticks))
        lead = record.rounding_ticks
    act.check(
        "in phase nothing is rounded",
        f"{found - doubtful} moves between hosts in phase: {worst} ticks off"
        + (f" ({doubtful} more took too long to measure for this to be promised)" if doubtful else ""),
        found > doubtful and worst == 0,
        beyond=True,
    )


def _judge_timers(act: Act, travelled: Travelled) -> None:
    report, exact = travelled.report, travelled.exact
    # A guest in real time may be too late itself to find one early: so the deadlines are looked at, too.
    shifted = sum(before != after for before, after in (passage.deadlines for passage in travelled.passages))
    act.check(
        "no timer is lost, early or late" if exact else "no timer is lost or early",
        f"of {report['expected']} decrementer interrupts {report['taken']} taken, {report['early']} early, "
        f"{report['late']} late{'' if exact else ' (as busy as this machine is)'}, {report['lost']} lost; "
        f"{shifted or 'no'} deadlines shifted by moves",
        report["expected"] == report["taken"] > 0
        and not (report["early"] or report["lost"] or shifted or (exact and report["late"])),
        beyond=True,
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
