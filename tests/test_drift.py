"""What docs/handover.md says of the drift experiment is what it finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from chronovisor.report.drift import (
    BIAS_US,
    CONTENDERS,
    DOWNTIMES_MS,
    HOPS,
    LIMIT,
    first_step,
    first_wide,
    run,
)
from chronovisor.report.drift_picture import Courses, draw
from chronovisor.report.drift_table import all_courses, table
from chronovisor.timebase.types import GRANULE

ROOT = Path(__file__).parents[1]
MS = 512_000
SHORT, LONG = DOWNTIMES_MS


@pytest.fixture(scope="module")
def courses() -> Courses:
    """The whole experiment: it takes seconds."""
    return all_courses(HOPS)


def test_the_page_has_the_table_that_is_found(courses: Courses) -> None:
    sys.path.insert(0, str(ROOT))
    from bench.drift import PAGE, page_with

    page = PAGE.read_text()
    assert page_with(page, table(courses)) == page


def test_rounding_up_drifts_without_bound(courses: Courses) -> None:
    for downtime in DOWNTIMES_MS:
        course = courses["a", downtime, 0]
        assert course.steps_back == 0
        # As much in each tenth of the way as in any other.
        tenths = [course.errors[n - 1] for n in range(HOPS // 10, HOPS + 1, HOPS // 10)]
        gains = [b - a for a, b in zip([0, *tenths], tenths, strict=False)]
        assert all(15.5 < gain / (HOPS / 10) / MS < 17.5 for gain in gains)
        assert round(course.errors[-1] / MS / 1000) in {163, 164}


def test_keeping_the_request_steps_back(courses: Courses) -> None:
    short, long = courses["b", SHORT, 0], courses["b", LONG, 0]
    assert 0.38 < short.steps_back / HOPS < 0.45
    assert short.largest_step_back > 25 * MS
    assert long.steps_back == 0
    assert short.largest_error < GRANULE


def test_times_of_day_err_by_their_disagreement(courses: Courses) -> None:
    short, long = courses["c", SHORT, 0], courses["c", LONG, 0]
    assert 7_000 < short.errors[-1] / MS < 9_000
    assert short.steps_back == long.steps_back == 0
    assert LIMIT + 4 * MS < long.largest_error <= LIMIT + 10 * MS


def test_ours_keeps_what_it_promises(courses: Courses) -> None:
    for letter in ("d", "e"):
        for downtime in DOWNTIMES_MS:
            for bias in (0, BIAS_US):
                course = courses[letter, downtime, bias]
                assert course.steps_back == 0
                assert course.outside == 0
                assert course.largest_rounding is not None
                assert course.largest_rounding <= LIMIT
                assert max(course.waits) <= GRANULE
    assert 4 < courses["d", SHORT, 0].mean_wait / MS < 5
    assert courses["d", SHORT, 0].largest_error < 50 * MS


def test_hosts_in_phase_put_nothing_off_before_the_interval_is_wide(courses: Courses) -> None:
    for downtime in DOWNTIMES_MS:
        for bias in (0, BIAS_US):
            course = courses["e", downtime, bias]
            wide, first = first_wide(course), first_step(course)
            assert wide is not None
            assert first is None or first > wide
    assert (first_step(courses["e", SHORT, 0]) or HOPS) > 2000


def test_a_bias_adds_up_inside_the_interval(courses: Courses) -> None:
    for downtime in DOWNTIMES_MS:
        course = courses["d", downtime, BIAS_US]
        assert 200 * MS < course.errors[-1] < 300 * MS
        assert course.intervals[-1].least < course.errors[-1] < course.intervals[-1].most


@pytest.mark.parametrize("seed", [2, 3])
def test_other_moves_say_the_same(seed: int) -> None:
    """A smaller sample of other hosts and flights."""
    found = {c.letter: run(c, SHORT, 0, 1500, seed) for c in CONTENDERS}
    assert found["a"].errors[-1] > 1500 * 15 * MS
    assert found["b"].steps_back > 500
    assert found["c"].errors[-1] > 500 * MS
    assert found["d"].steps_back == found["d"].outside == 0
    assert (found["d"].largest_rounding or 0) <= LIMIT
    assert (first_step(found["e"]) or 9999) > (first_wide(found["e"]) or 0)


def test_the_picture_is_drawn(courses: Courses, tmp_path: Path) -> None:
    draw(courses, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert 20_000 < (ROOT / "docs" / "drift.png").stat().st_size < 300_000
