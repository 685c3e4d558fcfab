import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.offset_advice import advise
from chronovisor.timebase.types import GRANULE, GuestTime, HostTime, Offset, Ticks

words = st.integers(0, 2**64 - 1)


@given(words, words, st.integers(0, 2**36))
def test_advice_agrees_with_the_clocks(guest: int, host: int, elapsed: int) -> None:
    advice = advise(GuestTime(guest), HostTime(host), Ticks(elapsed))
    ideal = GuestTime(guest + elapsed)
    assert advice.kernel.offset == Offset.rounded_up(advice.wanted)
    assert 0 <= advice.kernel.error.value < GRANULE
    assert abs(advice.nearest.error.value) <= GRANULE // 2
    for choice in (advice.kernel, advice.nearest):
        assert choice.guest_time == HostTime(host) + choice.offset
        assert choice.guest_time - ideal == choice.error
        back = choice.guest_time - GuestTime(guest)
        assert choice.steps_back == (back < Ticks(0))
        assert choice.wait == max(-back, Ticks(0))
    assert not advice.kernel.steps_back
    assert (advice.wanted - advice.wanted_signed) % 2**64 == 0


def test_an_exact_offset_has_no_error() -> None:
    advice = advise(GuestTime(5), HostTime(5 + 3 * GRANULE))
    assert advice.wanted_signed == -3 * GRANULE
    assert advice.kernel == advice.nearest
    assert not advice.kernel.error


def test_the_nearest_may_step_back_where_no_time_has_passed() -> None:
    advice = advise(GuestTime(100), HostTime(0))
    assert advice.kernel.offset == Offset(GRANULE)
    assert advice.nearest.offset == Offset(0)
    assert advice.nearest.steps_back
    assert advice.nearest.wait == Ticks(100)
    assert not advise(GuestTime(100), HostTime(100), Ticks(100)).nearest.steps_back


def test_time_elapsed_is_not_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        advise(GuestTime(0), HostTime(0), Ticks(-1))
