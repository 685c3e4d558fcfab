import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.handover import Exchange, IdealInterval, Sample, plan
from chronovisor.timebase.history import MAXIMUM_HOPS, AwayClock, History, Hop, HopKind
from chronovisor.timebase.policy import CATCH_UP, FREEZE, TimePolicy
from chronovisor.timebase.types import GRANULE, GuestTime, HostTime, Offset, Ticks

offsets = st.integers(0, 2**40 - 1).map(lambda granules: Offset(granules * GRANULE))


def moved(lived: History, away: int, policy: TimePolicy, origin: int) -> History:
    exchange = Exchange(Ticks(away), Ticks(0), Ticks(100), HostTime(origin + away))
    decided = plan(Sample(GuestTime(origin), lived.ideal), exchange, policy=policy)
    lived = lived.then(Hop.planned(HopKind.MOVE, AwayClock.EXCHANGE, decided))
    assert lived.ideal == decided.ideal
    return lived


@given(st.integers(0, 3 * MAXIMUM_HOPS), st.integers(0, 2**30), st.sampled_from([FREEZE, CATCH_UP]))
def test_the_oldest_are_folded_and_nothing_is_lost(count: int, away: int, policy: TimePolicy) -> None:
    lived, total, counted = History(5), 0, 0
    for number in range(count):
        lived = moved(lived, away, policy, number * 12_345)
        total += lived.hops[-1].record.elapsed_ticks
        counted += lived.hops[-1].record.counted_ticks
    assert lived.born == 5
    assert lived.folded + len(lived.hops) == count
    assert len(lived.hops) == min(count, MAXIMUM_HOPS)
    assert (lived.away.value, lived.counted.value) == (total, counted)
    assert policy is CATCH_UP or counted == 0
    said = lived.as_json()
    assert said["folded"] == lived.folded
    assert [hop["kind"] for hop in said["hops"]] == ["move"] * len(lived.hops)
    assert said["rounding_ticks"] == lived.ideal.rounding.value


@given(st.integers(0, 2**64 - 1), offsets, offsets)
def test_an_owners_word_begins_the_ideal_anew(now: int, before: Offset, after: Offset) -> None:
    lived = moved(History(0), 1000, CATCH_UP, 7)
    assert lived.ideal != IdealInterval()
    lived = lived.then(Hop.set_by_owner(HostTime(now), before, after, 3))
    assert lived.ideal == IdealInterval()
    record = lived.hops[-1].record
    assert lived.counted.value == lived.hops[0].record.counted_ticks
    assert record.advance == GuestTime(record.guest_tb_after) - GuestTime(record.guest_tb_before)


def test_a_history_that_is_too_long_is_none() -> None:
    hop = Hop.set_by_owner(HostTime(0), Offset(0), Offset(0), 0)
    with pytest.raises(ValueError, match="history"):
        History(0, (hop,) * (MAXIMUM_HOPS + 1))
    with pytest.raises(ValueError, match="history"):
        History(0, folded=-1)
