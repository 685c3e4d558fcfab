import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.clock import HostClock, RealTime, SteppingTime, TickSource, VirtualTime
from chronovisor.timebase.types import HostTime, SourceTime, Ticks


@given(st.integers(0, 2**40), st.lists(st.integers(0, 1000)), st.lists(st.integers(0, 400), max_size=10))
def test_each_alarm_is_called_at_its_tick_once_and_in_order(
    start: int, alarms: list[int], steps: list[int]
) -> None:
    source = VirtualTime(start)
    called: list[tuple[int, int, int]] = []
    for number, after in enumerate(alarms):
        at = start + after
        source.call_at(at, lambda n=number, at=at: called.append((at, n, source.ticks())))
    for step in steps:
        source.advance(step)
    end = start + sum(steps)
    assert source.ticks() == end
    due = sorted(
        (start + after, number) for number, after in enumerate(alarms) if start + after <= end and steps
    )
    assert [(at, number) for at, number, _ in called] == due
    assert all(at == now for at, _, now in called)
    left = [start + after for after in alarms if start + after > end or not steps]
    assert source.next_alarm() == (min(left) if left else None)


def test_an_alarm_may_set_the_next_within_one_advance() -> None:
    source = VirtualTime()
    called: list[int] = []

    def tick() -> None:
        called.append(source.ticks())
        source.call_at(source.ticks() + 10, tick)

    source.call_at(10, tick)
    source.advance(35)
    assert called == [10, 20, 30]
    assert source.next_alarm() == 40


def test_a_cancelled_alarm_is_not_called_even_from_another_at_its_tick() -> None:
    source = VirtualTime()
    called: list[str] = []
    source.call_at(5, lambda: second.cancel())
    second = source.call_at(5, lambda: called.append("second"))
    source.advance(10)
    assert called == []
    assert source.next_alarm() is None


def test_a_past_alarm_is_called_at_the_next_advance_where_the_clock_stands() -> None:
    source = VirtualTime(100)
    called: list[int] = []
    source.call_at(50, lambda: called.append(source.ticks()))
    assert called == []
    source.advance(0)
    assert called == [100]


def test_virtual_time_does_not_go_back() -> None:
    source = VirtualTime(100)
    with pytest.raises(ValueError, match="back"):
        source.advance(-1)
    source.sleep_until(50)
    assert source.ticks() == 100
    source.sleep_until(150)
    assert source.ticks() == 150


def test_stepping_time_steps_before_each_reading_and_calls_alarms_on_the_way() -> None:
    source = SteppingTime(0, [1, 10])
    seen: list[int] = []
    source.call_at(5, lambda: seen.append(source.ticks()))
    assert [source.ticks() for _ in range(3)] == [1, 11, 11]
    assert seen == [5]
    source.inject([100])
    assert [source.ticks() for _ in range(2)] == [111, 111]


class HeldTime(RealTime):
    """A real clock that stands still, so that what waits for it really waits."""

    held = 0

    def ticks(self) -> int:
        return self.held


def test_real_time_calls_no_earlier_than_asked() -> None:
    source = RealTime()
    done = threading.Event()
    called: list[int] = []
    at = source.ticks() + 500_000

    def call() -> None:
        called.append(source.ticks())
        done.set()

    source.call_at(at, call)
    assert done.wait(60)
    source.sleep_until(at + 500_000)
    assert source.ticks() >= at + 500_000
    assert len(called) == 1
    assert called[0] >= at


def test_real_time_waits_for_its_clock_and_does_not_call_what_was_cancelled() -> None:
    source = HeldTime()
    others = set(threading.enumerate())
    called: list[str] = []
    cancelled = source.call_at(1000, lambda: called.append("cancelled"))
    source.call_at(1000, lambda: called.append("kept"))
    cancelled.cancel()
    assert called == []
    source.held = 1000
    for waiting in set(threading.enumerate()) - others:
        waiting.join(60)
    assert called == ["kept"]


@pytest.mark.parametrize("source", [RealTime(), VirtualTime()], ids=["real", "virtual"])
def test_both_are_tick_sources(source: TickSource) -> None:
    assert source.frequency == 512_000_000
    assert source.ticks() <= source.ticks()
    source.call_at(source.ticks() + 2**62, lambda: None).cancel()


@given(st.integers(0, 2**70), st.integers(-(2**64), 2**64), st.integers(-(2**63), 2**63 - 1))
def test_host_clock_knows_the_tick_of_a_moment_across_its_wrap(start: int, origin: int, away: int) -> None:
    clock = HostClock(VirtualTime(start), origin)
    moment = clock.now() + Ticks(away)
    assert clock.ticks_at(moment) == start + away
    assert clock.at(start + away) == moment
    assert clock.now() == HostTime(start + origin)


def test_a_clock_is_not_set_back_while_somebody_counts_on_it() -> None:
    time = VirtualTime(1000)
    alarm = time.call_at(SourceTime(2000), lambda: None)
    with pytest.raises(ValueError, match="somebody has set an alarm"):
        time.rewind(SourceTime(500))
    assert time.ticks() == 1000
    alarm.cancel()
    time.rewind(SourceTime(500))
    assert time.ticks() == 500
