"""Tables on terminals of any width."""

from chronovisor.report.columns import aligned, fitting

ROWS = [("NAME", "STATE", "NOTE"), ("alice", "running", ""), ("bob", "paused", "x")]


def test_a_table_that_fits_is_one() -> None:
    assert fitting(ROWS, None) == fitting(ROWS, 20) == aligned(ROWS)
    assert max(map(len, aligned(ROWS))) == 20


def test_a_table_that_does_not_fit_becomes_blocks() -> None:
    assert fitting(ROWS, 19) == [
        "NAME   alice",
        "STATE  running",
        "",
        "NAME   bob",
        "STATE  paused",
        "NOTE   x",
    ]
    assert fitting(ROWS[:1], 1) == aligned(ROWS[:1])
