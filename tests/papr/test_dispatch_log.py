"""Logs as they are found: in a row, in a ring with and without its index, and in one being written."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.papr.dispatch_log import (
    DispatchLog,
    LogFormatError,
    from_ring,
    from_ring_alone,
    from_stream,
    problem,
    read_ring,
    reason_name,
    ticks_since,
)
from chronovisor.papr.vpa import DTL_ENTRY_SIZE, DispatchLogEntry, DispatchReason, PreemptReason

WHOLE = 1 << 64


def entry(number: int, timebase: int) -> DispatchLogEntry:
    return DispatchLogEntry(7, 4, number % 65_536, 1, 2, 3, timebase % WHOLE or 1, 0, 0x1000, 0x8000)


@st.composite
def written(draw: st.DrawFn) -> list[DispatchLogEntry]:
    """The entries that a hypervisor writes one after the other; the timebase may wrap among them."""
    start = draw(st.integers(1, WHOLE - 1))
    steps = draw(st.lists(st.integers(0, 1 << 40), max_size=30))
    return [entry(n, start + sum(steps[: n + 1])) for n in range(len(steps))]


class Ring:
    """A hypervisor's: each entry is stored before the index that makes it known."""

    def __init__(self, places: int) -> None:
        self.data = bytearray(places * DTL_ENTRY_SIZE)
        # What a guest writes there before it registers the log.
        self.data[4:8] = len(self.data).to_bytes(4, "big")
        self.index = 0

    def store(self, entry: DispatchLogEntry, upto: int = DTL_ENTRY_SIZE) -> None:
        """Store the next entry's first `upto` bytes, all but its end."""
        at = self.index * DTL_ENTRY_SIZE % len(self.data)
        self.data[at : at + upto] = entry.pack()[:upto]

    def write(self, entry: DispatchLogEntry) -> None:
        self.store(entry)
        self.index += 1

    def read(self, at: int, size: int) -> bytes:
        return bytes(self.data[at : at + size])


@given(entries=written(), places=st.integers(1, 12), tail=st.integers(0, DTL_ENTRY_SIZE - 1))
def test_a_wrapped_ring_is_read_in_order_and_what_is_lost_is_counted(
    entries: list[DispatchLogEntry], places: int, tail: int
) -> None:
    ring = Ring(places)
    for one in entries:
        ring.write(one)
    log = from_ring(bytes(ring.data) + bytes(tail), len(entries))
    assert log.entries == tuple(entries[-places:])
    assert log.lost == max(0, len(entries) - places)
    assert problem(log) is None


@given(entries=written(), places=st.integers(1, 12))
def test_without_its_index_a_ring_begins_where_its_time_goes_back(
    entries: list[DispatchLogEntry], places: int
) -> None:
    ring = Ring(places)
    for one in entries:
        ring.write(one)
    log = from_ring_alone(bytes(ring.data))
    assert sorted(e.processor_id for e in log.entries) == [
        e.processor_id for e in entries[max(0, len(entries) - places) :]
    ]
    assert all(ticks_since(a, b) >= 0 for a, b in pairwise(log.entries))
    assert log.lost is None


@given(entries=written())
def test_a_row_of_entries_is_itself(entries: list[DispatchLogEntry]) -> None:
    data = b"".join(one.pack() for one in entries)
    assert from_stream(data) == DispatchLog(tuple(entries), None)


@given(
    entries=st.integers(1, 60).map(lambda n: [entry(k, 1000 + k) for k in range(n)]),
    places=st.integers(1, 9),
    before=st.integers(0, 60),
    meanwhile=st.lists(st.integers(0, 12), min_size=3, max_size=3),
    half=st.integers(0, DTL_ENTRY_SIZE),
    start=st.integers(0, 60),
    count=st.none() | st.integers(1, 12),
)
def test_what_is_read_while_it_is_written_is_never_torn_nor_mixed(
    entries: list[DispatchLogEntry],
    places: int,
    before: int,
    meanwhile: list[int],
    half: int,
    start: int,
    count: int | None,
) -> None:
    ring = Ring(places)
    coming = iter(entries)

    def write(count: int) -> None:
        for one, _ in zip(coming, range(count), strict=False):
            ring.write(one)

    def read(at: int, size: int) -> bytes:
        write(meanwhile[0])
        # One is being stored at this moment.
        if (one := next(coming, None)) is not None:
            ring.store(one, half)
        data = bytes(ring.data[at : at + size])
        if one is not None:
            ring.write(one)
        write(meanwhile[1])
        return data

    write(before)
    announced = ring.index
    log = read_ring(read, len(ring.data), lambda: ring.index, start, count)
    if log is not None:
        assert log.first is not None
        assert log.written == announced
        end = announced if count is None else min(announced, log.first + count)
        assert log.entries == tuple(entries[log.first : log.first + len(log.entries)])
        assert log.first + len(log.entries) <= end
        if ring.index == announced:
            # Nothing was written meanwhile: all that was asked for is there.
            assert log.first + len(log.entries) == end
            assert log.first == start or not announced - places < start <= announced
    else:
        assert places == 1 or ring.index > announced


@given(st.integers(1, 8), st.integers(0, 30), st.integers(0, 30), st.none() | st.integers(1, 12))
def test_of_a_log_that_stands_no_more_is_read_than_was_asked_for(
    places: int, written: int, start: int, count: int | None
) -> None:
    ring = Ring(places)
    entries = [entry(n, 1000 + n) for n in range(written)]
    for one in entries:
        ring.write(one)
    asked: list[int] = []

    def read(at: int, size: int) -> bytes:
        asked.append(size)
        return ring.read(at, size)

    log = read_ring(read, len(ring.data), lambda: ring.index, start, count, standing=True)
    assert log is not None
    oldest = max(0, written - places)
    first = start if oldest <= start <= written else oldest
    assert log == DispatchLog(tuple(entries[first:][:count]), first)
    assert sum(asked) == len(log.entries) * DTL_ENTRY_SIZE


def test_of_a_ring_that_nobody_writes_all_but_the_oldest_is_read() -> None:
    ring = Ring(4)
    for n in range(9):
        ring.write(entry(n, 1000 + n))
    log = read_ring(ring.read, len(ring.data), lambda: ring.index)
    assert log is not None
    assert [e.processor_id for e in log.entries] == [6, 7, 8]
    assert log.lost == 6
    empty = read_ring(Ring(4).read, len(ring.data), lambda: 0)
    assert empty == DispatchLog((), 0)


def test_a_log_that_was_registered_anew_meanwhile_is_read_again() -> None:
    indices = iter([9, 2])
    assert read_ring(Ring(4).read, len(Ring(4).data), lambda: next(indices)) is None


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("100 bytes are 2 entries of 48 bytes and 4 bytes of another", lambda: from_stream(bytes(100))),
        ("47 bytes holds no entry", lambda: from_ring(bytes(47), 3)),
        ("0 bytes holds no entry", lambda: from_ring_alone(b"")),
        (
            "time goes back 2 times in 3 entries",
            lambda: from_ring_alone(b"".join(entry(0, 9 - n).pack() for n in range(3))),
        ),
    ],
)
def test_bytes_that_are_no_log(words: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(LogFormatError, match=words):
        make()


@pytest.mark.parametrize(
    ("words", "entries"),
    [
        ("entry 11 has no time", [entry(0, 5), DispatchLogEntry(7, 4, 0, 0, 0, 0, 0, 0, 0, 0)]),
        ("entry 10: there is no dispatch reason 64", [DispatchLogEntry(64, 0, 0, 0, 0, 0, 5, 0, 0, 0)]),
        ("entry 10: there is no preempt reason 10", [DispatchLogEntry(0, 10, 0, 0, 0, 0, 5, 0, 0, 0)]),
        ("entry 12 is 3 ticks before entry 11", [entry(0, 5), entry(1, 8), entry(2, 5)]),
    ],
)
def test_what_no_hypervisor_wrote_is_said(words: str, entries: list[DispatchLogEntry]) -> None:
    said = problem(DispatchLog(tuple(entries), 10))
    assert said is not None
    assert words in said


def test_reasons_have_names() -> None:
    assert reason_name(DispatchReason, 3) == "decrementer interrupt"
    assert reason_name(PreemptReason, 2) == "cede"
    assert reason_name(PreemptReason, 99) == "reason 99"
