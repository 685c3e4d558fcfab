import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.types import FREQUENCY, GRANULE, GuestTime, HostTime, Offset, Ticks

words = st.integers(0, 2**64 - 1)
ints = st.integers(-(2**66), 2**66)
offsets = st.builds(Offset.rounded_up, ints)
durations = st.builds(Ticks, st.integers(-(2**63), 2**63 - 1))


@given(st.builds(HostTime, words), offsets, durations)
def test_offset_and_duration_commute(host: HostTime, offset: Offset, duration: Ticks) -> None:
    assert (host + offset) - offset == host
    assert (host + duration) + offset == (host + offset) + duration
    assert (host + duration) - host == duration
    assert host - (host + duration) == Ticks((-duration.value + 2**63) % 2**64 - 2**63)


@given(ints)
def test_rounding_up_is_the_least_multiple_above(value: int) -> None:
    rounded = Offset.rounded_up(value).value
    assert rounded % GRANULE == 0
    assert 0 <= (rounded - value) % 2**64 < GRANULE


def test_rounding_up_as_the_kernel_does() -> None:
    assert Offset.rounded_up(0x1234567) == Offset(0x2000000)
    assert Offset.rounded_up(2**64 - 1) == Offset(0)
    assert Offset.rounded_up(-GRANULE - 1).signed == -GRANULE


@given(offsets, offsets)
def test_offsets_are_a_group_modulo_2_to_the_64(a: Offset, b: Offset) -> None:
    assert a + b - b == a
    assert not (a + -a)
    assert -(2**63) <= a.signed < 2**63
    assert a.signed % 2**64 == a.value


@pytest.mark.parametrize("value", [1, GRANULE - 1, 2**64, -GRANULE])
def test_no_offset_of_a_value_that_is_none(value: int) -> None:
    with pytest.raises(ValueError, match="offset"):
        Offset(value)


KINDS = (HostTime(5), GuestTime(5), Ticks(5), Offset(GRANULE), 5)
MAY_ADD = {
    ("HostTime", "Ticks"),
    ("HostTime", "Offset"),
    ("GuestTime", "Ticks"),
    ("Ticks", "Ticks"),
    ("Offset", "Offset"),
}
MAY_SUBTRACT = {
    ("HostTime", "Ticks"),
    ("HostTime", "HostTime"),
    ("GuestTime", "Ticks"),
    ("GuestTime", "GuestTime"),
    ("GuestTime", "Offset"),
    ("Ticks", "Ticks"),
    ("Offset", "Offset"),
}


@pytest.mark.parametrize("left", KINDS, ids=repr)
@pytest.mark.parametrize("right", KINDS, ids=repr)
@pytest.mark.parametrize(("op", "allowed"), [(operator.add, MAY_ADD), (operator.sub, MAY_SUBTRACT)])
def test_only_what_belongs_together_mixes(left: object, right: object, op, allowed) -> None:
    kinds = (type(left).__name__, type(right).__name__)
    if kinds in allowed or kinds == ("int", "int"):
        op(left, right)
    else:
        with pytest.raises(TypeError):
            op(left, right)


@pytest.mark.parametrize("time", [HostTime(1), GuestTime(1)], ids=repr)
def test_times_have_no_order(time: HostTime | GuestTime) -> None:
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(TypeError, match="difference"):
            compare(time, time)


def test_host_and_guest_time_are_not_even_unequal() -> None:
    with pytest.raises(TypeError, match="convert"):
        _ = HostTime(1) == GuestTime(1)
    with pytest.raises(TypeError, match="convert"):
        _ = GuestTime(1) != HostTime(1)
    assert HostTime(1) != 1
    assert Ticks(1) != 1


@pytest.mark.parametrize("kind", [HostTime, GuestTime, Ticks, Offset.rounded_up, Ticks.from_ns])
@pytest.mark.parametrize("value", [1.0, True, "1", None])
def test_times_are_made_of_ints(kind, value) -> None:
    with pytest.raises(TypeError, match="int"):
        kind(value)


@given(st.integers(-(2**70), 2**70))
def test_nanoseconds_and_back(ns: int) -> None:
    ticks = Ticks.from_ns(ns)
    assert ticks.value * 10**9 <= ns * FREQUENCY < (ticks.value + 1) * 10**9
    assert 0 <= ns - ticks.ns < 3
    assert Ticks(FREQUENCY).ns == 10**9


@given(st.integers(-100, 100), st.integers(-100, 100))
def test_durations_compare_as_ints_do(a: int, b: int) -> None:
    for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq):
        assert compare(Ticks(a), Ticks(b)) == compare(a, b)
    assert bool(Ticks(a)) == bool(a)
    assert int(2 * Ticks(a) - Ticks(b) + -Ticks(b)) == 2 * a - 2 * b
    assert abs(Ticks(a)) == Ticks(abs(a))


def test_equal_times_hash_alike() -> None:
    assert len({HostTime(2**64 + 1), HostTime(1)}) == 1
    assert len({Ticks(1), Ticks(1), Offset(0), Offset(0)}) == 2
    assert repr(GuestTime(255)) == "GuestTime(0xff)"
