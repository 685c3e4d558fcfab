"""The answer of the campaign `fleet`: its table, its numbers and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from chronovisor.campaigns.campaign import Answer, Json, Parameters
from chronovisor.campaigns.fleet.clocks import CONTENDERS, OURS
from chronovisor.campaigns.fleet.tally import Tally
from chronovisor.report.fleet_picture import Line, draw
from chronovisor.timebase.types import FREQUENCY

HEAD: Final = (
    "rule",
    "median error",
    "99 %",
    "largest",
    "steps back",
    "of them the largest",
    "moves that wait",
    "mean wait",
    "longest",
    "a guest's waits in a year",
    "the truth outside its interval",
)
SHARES: Final = (0.5, 0.99)


def answer(tallies: Mapping[str, Tally], given: Parameters) -> Answer:
    """Return the answer; `tallies` has one for each contender, and one for what the rates made."""
    rows, data = [HEAD], {}
    for contender in CONTENDERS:
        tally = tallies[contender.words]
        if not tally.moves:
            continue
        median, most = (tally.errors[-1].quantile(share) for share in SHARES)
        ours = contender.rule == OURS
        yearly = tally.waited / tally.guests * 365 / given["days"]
        rows.append(
            (
                contender.words,
                milliseconds(median),
                milliseconds(most),
                milliseconds(tally.largest_error),
                f"{tally.steps_back / tally.moves:.2%}" if tally.steps_back else "none",
                milliseconds(tally.largest_step_back) if tally.steps_back else "–",
                f"{tally.waits / tally.moves:.1%}" if ours else "–",
                milliseconds(tally.waited / tally.moves) if ours else "–",
                milliseconds(tally.longest_wait) if ours else "–",
                milliseconds(yearly) if ours else "–",
                f"{tally.outside} of {tally.moves}" if ours else "says none",
            )
        )
        data[contender.words] = _for_programs(tally)
    moves = tallies[CONTENDERS[0].words].moves
    rates = tallies["rates"]
    remarks = []
    if rates.errors:
        middle, most = (rates.errors[0].quantile(share) for share in SHARES)
        data["rates"] = {
            "error_quantiles_ticks": {str(share): rates.errors[0].quantile(share) for share in SHARES}
        }
        remarks = [
            f"{moves} moves of {rates.guests} guests in {given['days']} days. Errors are what the moves made "
            "of a guest's clock.",
            f"Beside that, hosts whose rates are off made {milliseconds(middle)} (median) and "
            f"{milliseconds(most)} (99 %) of it.",
        ]
    lines = [
        Line(
            contender.words,
            [[one.quantile(share) for share in SHARES] for one in tallies[contender.words].errors],
        )
        for contender in CONTENDERS
        if tallies[contender.words].moves
    ]
    picture = partial(draw, lines, given["days"]) if lines else None
    return Answer(rows, data, remarks, picture)


def _for_programs(tally: Tally) -> Json:
    numbers = {name: value for name, value in vars(tally).items() if name != "errors"}
    months = [{str(share): one.quantile(share) for share in SHARES} for one in tally.errors]
    return {**numbers, "error_quantiles_ticks": months}


def milliseconds(ticks: float) -> str:
    """Return a duration in ticks for people: in milliseconds, or in seconds if there are many."""
    value = ticks * 1000 / FREQUENCY
    return (
        f"{value / 1000:.1f} s"
        if value >= 10_000
        else f"{value:.3g} ms"
        if value < 0.1
        else f"{value:.2f} ms"
    )
