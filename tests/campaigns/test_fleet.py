"""The simulated fleet: its moves make sense, and its clocks are those of the production handover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chronovisor.campaigns.campaign import CampaignError, Result
from chronovisor.campaigns.fleet import clocks as clocks_module
from chronovisor.campaigns.fleet.campaign import CAMPAIGN
from chronovisor.campaigns.fleet.clocks import CONTENDERS, OURS, Clocks, Measured, measured, rate_errors
from chronovisor.campaigns.fleet.moves import Boots, Moves, in_turns
from chronovisor.campaigns.fleet.schedule import AWAY, DAY, HOSTS, Cells
from chronovisor.campaigns.fleet.tally import Histogram, Tally, merged
from chronovisor.campaigns.fleet.timebases import ANY_PHASE, IN_PHASE, LOCKED, Timebases
from chronovisor.report.fleet_picture import Line, draw
from chronovisor.timebase.handover import Absence, IdealInterval, Sample, plan
from chronovisor.timebase.simple_rules import always_round_up, round_to_nearest, round_up_when_short
from chronovisor.timebase.types import LOW_MASK, GuestTime, HostTime, Ticks

GUESTS, DAYS = 200, 60
SMALL = {"hosts": 200, "guests": 400, "days": 40}


@pytest.fixture(scope="module")
def cell() -> tuple[Cells, Boots, Moves]:
    made = Cells(3, range(5, 6), GUESTS)
    return made, *made.run(DAYS * DAY)


def seen(boots: Boots, moves: Moves, kind: Any = ANY_PHASE) -> Measured:
    return measured(moves, Timebases(kind, boots, [[1]]))


@pytest.mark.parametrize(
    ("guests", "days"),
    [(GUESTS, DAYS), pytest.param(50 * HOSTS, 4, id="more guests on a host than it has targets")],
)
def test_guests_move_from_where_they_are_to_hosts_that_are_up(guests: int, days: int) -> None:
    made = Cells(3, range(5, 6), guests)
    boots, moves = made.run(days * DAY)
    assert len(moves.guest) > 1000
    place = made.began_on.copy()
    ended: dict[int, int] = {}
    for host in range(HOSTS):
        mine = [boot for boot in range(len(boots.host)) if boots.host[boot] == host]
        ended |= dict(zip(mine, [int(boots.at[boot]) - AWAY for boot in mine[1:]], strict=False))
    free_at = np.zeros(guests)
    for at in range(len(moves.guest)):
        guest, source, to = moves.guest[at], int(moves.source[at]), int(moves.destination[at])
        assert place[guest] == source != to
        assert moves.stopped[at] >= max(free_at[guest], boots.at[to])
        assert moves.committed[at] <= ended.get(to, days * DAY + DAY)
        place[guest], free_at[guest] = to, moves.committed[at]
    assert (np.diff(moves.stopped) > 0).all()
    # Nobody was left behind on a host that rebooted.
    assert not set(place.tolist()) & set(ended)


def test_every_clock_is_that_of_the_production_handover(cell: tuple[Cells, Boots, Moves]) -> None:
    """Move by move, on ints, with `plan` and with the simple rules as they are."""
    _, boots, moves = cell
    rules = {"always up": always_round_up, "nearest": round_to_nearest, "up if short": round_up_when_short}
    for contender in CONTENDERS:
        these, turns = in_turns(moves)
        parts = seen(boots, these, contender.kind)
        clocks = Clocks(contender, GUESTS)
        for turn in turns:
            clocks.move(parts.part(turn))
        error = [0] * GUESTS
        ideals = [IdealInterval()] * GUESTS
        waited = 0
        for at in range(len(moves.guest)):
            guest, stopped = int(parts.guest[at]), GuestTime(0)
            least, most, now = int(parts.least[at]), int(parts.most[at]), HostTime(int(parts.phase[at]))
            wait = 0
            if contender.rule == OURS:
                decided = plan(Sample(stopped, ideals[guest]), Absence(least, most, now))
                ideals[guest], wait, offset = decided.ideal, decided.wait.value, decided.offset
            else:
                offset = rules[contender.rule](stopped, Ticks((least + most) // 2), now)
            waited += wait
            advance = ((now + Ticks(wait) + offset) - stopped).value
            true_wait = wait - round(wait * float(parts.rate[at]))
            error[guest] += advance - int(parts.elapsed[at]) - true_wait
        assert clocks.error.tolist() == error
        assert clocks.ideal_least.tolist() == [ideal.least for ideal in ideals]
        assert clocks.ideal_most.tolist() == [ideal.most for ideal in ideals]
        assert clocks.tally([]).waited == waited
        assert clocks.tally([]).moves == len(moves.guest)


def test_hosts_measure_by_clocks_of_their_own(cell: tuple[Cells, Boots, Moves]) -> None:
    _, boots, moves = cell
    any_phase, locked = seen(boots, moves), seen(boots, moves, LOCKED)
    assert (any_phase.least != locked.least).any()
    assert (np.abs(any_phase.least - locked.least) <= 1 + moves.downtime * 40e-6).all()
    # Hosts that are in phase, and stay so: the phase is the time that has passed.
    assert (locked.phase == locked.elapsed & LOW_MASK).all()
    # Hosts that were in phase at their boots: no longer so.
    drifted = (seen(boots, moves, IN_PHASE).phase - locked.phase) & LOW_MASK
    assert len(np.unique(drifted >> 20)) == 16


def test_rates_add_up_over_the_hosts_of_a_guest(cell: tuple[Cells, Boots, Moves]) -> None:
    made, boots, moves = cell
    times = Timebases(ANY_PHASE, boots, [[1]])
    end = DAYS * DAY
    found = rate_errors(moves, times, made.began_on, end)
    error, now, boot = (
        np.zeros(GUESTS, dtype=np.int64),
        np.zeros(GUESTS, dtype=np.int64),
        made.began_on.copy(),
    )

    def ahead(boot: int, at: int) -> int:
        return int(times.ahead(np.array([boot]), np.array([at]))[0])

    for at in range(len(moves.guest)):
        guest = moves.guest[at]
        error[guest] += ahead(boot[guest], moves.stopped[at]) - ahead(boot[guest], now[guest])
        now[guest], boot[guest] = moves.committed[at], moves.destination[at]
    for guest in range(GUESTS):
        error[guest] += ahead(boot[guest], end) - ahead(boot[guest], now[guest])
    assert found.tolist() == error.tolist()
    assert not rate_errors(moves, Timebases(LOCKED, boots, [[1]]), made.began_on, end).any()


def whole(seed: int, *parts: list[int]) -> dict[str, Tally]:
    results = [CAMPAIGN.perform(seed, SMALL, part) for part in parts]
    return {
        name: merged(Tally.from_json(result.data[name]) for result in results) for name in results[0].data
    }


def test_tasks_are_pure_and_their_cut_does_not_matter() -> None:
    together, apart = whole(1, [0, 2]), whole(1, [0, 1], [1, 2])
    assert {name: one.to_json() for name, one in together.items()} == {
        name: one.to_json() for name, one in apart.items()
    }
    assert whole(2, [0, 2])["ours: any phase, free rates"] != together["ours: any phase, free rates"]


def test_the_answer_is_the_one_in_the_docs() -> None:
    course = CAMPAIGN.course(1, SMALL, False)
    batch = next(course)
    results: list[Result] = [CAMPAIGN.perform(1, SMALL, part) for part in batch.parts]
    with pytest.raises(StopIteration) as stopped:
        course.send(results)
    data = stopped.value.value.data
    ours = data["ours: any phase, free rates"]
    assert ours["moves"] == sum(result.done for result in results) > 1000
    assert ours["largest_rounding"] <= 1 << 23
    assert ours["steps_back"] == ours["outside"] == 0 < ours["waited"]
    assert data["ours: in phase, one rate"]["waited"] == 0
    assert data["nearest: any phase, free rates"]["steps_back"] > 0
    assert data["always up: any phase, free rates"]["largest_error"] > 5 * ours["largest_error"]
    assert not any(result.found for result in results)


def test_a_broken_promise_is_found_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the handover lets the guest go back by a tick."""
    right = clocks_module.continued

    def wrong(*given: Any, **named: Any) -> Any:
        advance, wait, *rest = right(*given, **named)
        return advance, np.where(wait > 0, wait - 1, wait), *rest

    monkeypatch.setattr(clocks_module, "continued", wrong)
    found = CAMPAIGN.perform(1, SMALL, [0, 1]).found
    assert {failure.words for failure in found} == {"P4: the guest's time goes back"}
    # The production handover does not fail in this case.
    again = CAMPAIGN.replay(1, SMALL, found[0].case)
    assert not again.fails
    assert "it waits for" in again.story[1]
    with pytest.raises(CampaignError, match="this is no case"):
        CAMPAIGN.replay(1, SMALL, {"least": 1})


def test_quantiles_are_a_little_too_large_at_most() -> None:
    errors = np.random.default_rng(1).integers(-(10**7), 10**7, 5000)
    histogram = Histogram()
    histogram.add(errors[:1000])
    histogram.add(errors[1000:])
    for share in (0.1, 0.5, 0.99, 1.0):
        true = np.quantile(np.abs(errors), share, method="inverted_cdf")
        assert true <= histogram.quantile(share) <= 1.0906 * (true + 1)
    assert Histogram().quantile(0.5) == 0.0


def test_the_picture_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    lines = [Line("ours", [[100.0, 5000.0], [200.0, 9000.0]]), Line("up", [[1e6, 2e6], [3e6, 4e6]])]
    for name in ("one.png", "two.png"):
        draw(lines, 60, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
