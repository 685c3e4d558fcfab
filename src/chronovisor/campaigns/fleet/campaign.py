"""The campaign `fleet`: what clock error do the guests of a large fleet end with, under our rule for the
offset and under simpler ones; how much do they wait; what does it help if the hosts are in phase?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from chronovisor.campaigns.campaign import (
    Batch,
    CampaignError,
    Course,
    Failure,
    Json,
    Parameters,
    Replay,
    Result,
)
from chronovisor.campaigns.fleet.clocks import CONTENDERS, OURS, Clocks, measured, rate_errors
from chronovisor.campaigns.fleet.moves import in_turns
from chronovisor.campaigns.fleet.schedule import DAY, HOSTS, Cells
from chronovisor.campaigns.fleet.table import answer
from chronovisor.campaigns.fleet.tally import Histogram, Tally, merged
from chronovisor.campaigns.fleet.timebases import ANY_PHASE, Timebases
from chronovisor.timebase.handover import Absence, IdealInterval, Sample, plan
from chronovisor.timebase.types import MASK64, GuestTime, HostTime, Ticks

CELLS: Final = 10
"""Cells of a task: it takes seconds."""
MONTHS: Final = 12
"""In so many parts is the time cut; errors are counted at the end of each."""
RATES: Final = "rates"
"""The name of what the rates alone made of the clocks, beside the contenders' names."""


def _simulated(seed: int, numbers: range, given: Parameters) -> tuple[dict[str, Tally], list[Failure]]:
    """Simulate cells; return a tally for each contender, and what was found."""
    in_cell, end = given["guests"] // (given["hosts"] // HOSTS), given["days"] * DAY
    cells, guests = Cells(seed, numbers, in_cell), in_cell * len(numbers)
    boots, moves = cells.run(end)
    kinds = {contender.kind: None for contender in CONTENDERS}
    timebases = {kind: Timebases(kind, boots, [[seed, number, 1] for number in numbers]) for kind in kinds}
    clocks = [Clocks(contender, guests) for contender in CONTENDERS]
    errors: list[list[Histogram]] = [[] for _ in CONTENDERS]
    month = np.searchsorted(np.linspace(0, end, MONTHS + 1)[1:], moves.stopped, side="right")
    for number in range(MONTHS):
        these, turns = in_turns(moves.part(month == number))
        seen = {kind: measured(these, timebases[kind]) for kind in kinds}
        for contender, one, histograms in zip(CONTENDERS, clocks, errors, strict=True):
            for turn in turns:
                one.move(seen[contender.kind].part(turn))
            histograms.append(Histogram())
            histograms[-1].add(one.error)
    tallies = {
        contender.words: one.tally(histograms)
        for contender, one, histograms in zip(CONTENDERS, clocks, errors, strict=True)
    }
    rates = Histogram()
    rates.add(rate_errors(moves, timebases[ANY_PHASE], cells.began_on, end))
    tallies[RATES] = Tally(guests=guests, errors=[rates])
    return tallies, [failure for one in clocks for failure in one.found]


@dataclass(frozen=True)
class Fleet:
    """See the module's text."""

    name: str = "fleet"
    unit: str = "moves"
    parameters: Parameters = field(default_factory=lambda: {"hosts": 10_000, "guests": 100_000, "days": 365})
    shared: Sequence[str] = ("hosts", "guests")
    time_limit: float = 600.0

    def course(self, seed: int, given: Parameters, endless: bool) -> Course:
        """Return the course: a task for every few cells."""
        cells, rest = divmod(given["hosts"], HOSTS)
        if rest or cells < 1:
            raise CampaignError(f"hosts={given['hosts']}: a fleet has cells of {HOSTS} hosts")
        if given["guests"] < cells or given["guests"] % cells:
            raise CampaignError(f"guests={given['guests']}: each of the {cells} cells has equally many")
        if not 1 <= given["days"] <= 3650:
            raise CampaignError(f"days={given['days']}: from a day to ten years")
        return self._course(cells, given)

    def _course(self, cells: int, given: Parameters) -> Course:
        parts = [[first, min(first + CELLS, cells)] for first in range(0, cells, CELLS)]
        results = yield Batch(parts, len(parts))
        told = [result.data for result in results]
        names = [contender.words for contender in CONTENDERS] + [RATES]
        tallies = {name: merged(Tally.from_json(one[name]) for one in told) for name in names}
        return answer(tallies, given)

    def perform(self, seed: int, given: Parameters, part: Json) -> Result:
        """Simulate cells."""
        tallies, found = _simulated(seed, range(*part), given)
        moves = tallies[CONTENDERS[0].words].moves
        return Result(moves, {name: tally.to_json() for name, tally in tallies.items()}, tuple(found))

    def replay(self, seed: int, given: Parameters, case: Json) -> Replay:
        """Run one handover once more, by `handover.plan`."""
        try:
            ideal = IdealInterval(case["ideal_least"], case["ideal_most"])
            stopped = GuestTime(0)
            decided = plan(
                Sample(stopped, ideal),
                Absence(case["least"], case["most"], HostTime(case["phase"] & MASK64)),
            )
        except (KeyError, TypeError) as error:
            raise CampaignError(f"this is no case of {self.name}: {error}") from None
        advance = (decided.resume_at + decided.offset - stopped).value
        story = (
            f"the guest was away for {case['least']} to {case['most']} ticks, and before that "
            f"{ideal.least} to {ideal.most} ticks ahead of its ideal",
            f"it waits for {decided.wait.value} ticks and goes on {advance} ticks later, then "
            f"{decided.ideal.least} to {decided.ideal.most} ticks ahead",
        )
        limit, rounding = Ticks(1 << 23), abs(decided.ideal.rounding.value)
        fails = advance < 0 or rounding > limit.value or decided.wait > limit * 2
        return Replay(fails, story)


assert CONTENDERS[0].rule == OURS
CAMPAIGN: Final = Fleet()
