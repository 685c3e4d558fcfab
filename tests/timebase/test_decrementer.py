import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.timebase.clock import HostClock, VirtualTime
from chronovisor.timebase.decrementer import Decrementer, DecWidth, rebased, remaining
from chronovisor.timebase.handover import Exchange, Sample, plan
from chronovisor.timebase.offset import Switch
from chronovisor.timebase.tbu40 import CoreTimebase
from chronovisor.timebase.types import FREQUENCY, HostTime, Offset, SourceTime, Ticks

widths = st.sampled_from([32, 56])
words = st.integers(0, 2**64 - 1)
offsets = st.builds(Offset.rounded_up, words)


class Thread:
    """A hardware thread on a core of a host."""

    def __init__(self, origin: int = 0, source: VirtualTime | None = None) -> None:
        self.source = source or VirtualTime()
        self.clock = HostClock(self.source, origin)
        self.timebase = CoreTimebase(self.clock)
        self.dec = Decrementer(self.clock)


@given(words, st.integers(0, 2**57))
def test_dec_counts_down_in_both_widths(value: int, later: int) -> None:
    thread = Thread()
    thread.dec.write(value, 32)
    thread.source.advance(later)
    assert thread.dec.read(32) == (value - later) % 2**32
    thread.dec.write(value, 56)
    thread.source.advance(later)
    expected = (value - later) % 2**56
    assert thread.dec.read(56) == (expected if expected < 2**55 else expected - 2**56 + 2**64)


@pytest.mark.parametrize("width", [32, 56])
def test_the_exception_is_a_level_that_follows_the_top_bit(width: DecWidth) -> None:
    thread = Thread()
    thread.dec.write(5, width)
    states = []
    for _ in range(7):
        states.append((thread.dec.asserted(width), thread.dec.expired))
        thread.source.advance(1)
    assert states == [(False, False)] * 6 + [(True, True)]
    thread.dec.write(100, width)
    assert not thread.dec.asserted(width)
    thread.dec.write(2**width - 1, width)
    assert thread.dec.asserted(width)
    thread.dec.write(1 << (width - 1), width)
    assert thread.dec.asserted(width)
    thread.source.advance(1)
    assert not thread.dec.asserted(width)  # it wrapped while its thread ran
    assert not thread.dec.latched


class Steps(VirtualTime):
    """The machine's own clock, as a test says that it passes."""

    is_virtual = False


@pytest.mark.parametrize("stopped", [0, 1 << 31, (1 << 31) + 1, 3 << 31, 1 << 40])
def test_a_write_of_native_code_before_a_stop_is_not_lost(stopped: int) -> None:
    """Python learns of it after the stop: however long that was, the exception is there."""
    source = Steps(1 << 50)
    thread = Thread(source=source)
    written = source.ticks()
    source.advance(6 + stopped)
    thread.dec.write_deadline(SourceTime(written + 5), written, 32)
    assert thread.dec.asserted(32)
    source.advance(1 << 31)
    thread.dec.write_deadline(SourceTime(source.ticks() + 5), source.ticks(), 32)
    assert not thread.dec.asserted(32)


def test_a_write_of_the_least_value_by_native_code_wraps_as_any_other() -> None:
    """Python learns of it when it has wrapped already, under the eyes of the guest."""
    source = Steps(1 << 50)
    thread, other = Thread(source=source), Thread(source=source)
    written = source.ticks()
    other.dec.write(1 << 31, 32)
    source.advance(3)
    thread.dec.write_deadline(SourceTime(written - (1 << 31)), written, 32)
    assert thread.dec.read(32) == other.dec.read(32) == (1 << 31) - 3
    assert not thread.dec.asserted(32)
    assert not other.dec.asserted(32)


@given(words, words, offsets, st.integers(0, 2**33), widths)
def test_a_write_to_tbu40_does_not_move_it(
    value: int, origin: int, offset: Offset, later: int, width: DecWidth
) -> None:
    thread = Thread(origin)
    thread.dec.write(value, width)
    before = thread.dec.read(width)
    applied = Switch().enter(thread.timebase, offset)
    assert thread.dec.read(width) == before
    thread.source.advance(later)
    aside = thread.dec.read(width)
    Switch().leave(thread.timebase, applied)
    assert thread.dec.read(width) == aside


@given(words, words, widths, st.integers(0, 2**40))
def test_the_expiry_is_dec_plus_timebase_at_one_instant(
    value: int, origin: int, width: DecWidth, later: int
) -> None:
    thread = Thread(origin)
    thread.dec.write(value, width)
    thread.source.advance(later % 2**31)
    expiry = thread.dec.expiry(thread.timebase, width)
    dec = thread.dec.read(width)
    signed = dec - 2**32 if width == 32 and dec >= 2**31 else dec
    if not thread.dec.latched:
        assert expiry == HostTime(signed + thread.timebase.read())
    # However late it is loaded, it reads as if it had never been kept.
    thread.source.advance(later)
    direct = thread.dec.read(width)
    thread.dec.load(expiry)
    assert thread.dec.read(width) == direct


stays = st.tuples(st.integers(0, 1), st.none() | st.integers(0, 2**30), st.integers(0, 2**20), offsets)


@given(words, st.lists(stays, min_size=2, max_size=12))
def test_two_vcpus_on_one_thread_keep_the_expiries_that_they_have_set(
    origin: int, course: list[tuple[int, int | None, int, Offset]]
) -> None:
    """A stay: which vCPU it is, what it writes to DEC if it does, for how long it stays, and its offset."""
    thread = Thread(origin)
    kept = [thread.clock.now(), thread.clock.now() + Ticks(5)]
    true = list(kept)
    for vcpu, value, ticks, offset in course:
        thread.dec.load(kept[vcpu])
        applied = Switch().enter(thread.timebase, offset)
        if value is not None:
            thread.dec.write(value, 32)
            true[vcpu] = thread.clock.now() + Ticks(value)
        thread.source.advance(ticks)
        # DEC + T, and so in the units of T.
        assert thread.dec.expiry(thread.timebase, 32) == true[vcpu] + Ticks(offset.signed)
        Switch().leave(thread.timebase, applied)
        kept[vcpu] = thread.dec.expiry(thread.timebase, 32)
        assert kept[vcpu] == true[vcpu]


@given(words, offsets)
def test_the_expiry_is_in_the_units_of_the_timebase_then(origin: int, offset: Offset) -> None:
    thread = Thread(origin)
    thread.dec.write(1000, 32)
    host = thread.dec.expiry(thread.timebase, 32)
    applied = Switch().enter(thread.timebase, offset)
    assert thread.dec.expiry(thread.timebase, 32) == host + Ticks(offset.signed)
    Switch().leave(thread.timebase, applied)
    assert thread.dec.expiry(thread.timebase, 32) == host


@pytest.mark.parametrize("width", [32, 56])
@pytest.mark.parametrize("seconds", [0, 1, 4, 5, 8, 9, 10, 3600])
@pytest.mark.parametrize("left", [-3, 0, 1000])
def test_a_stop_loses_no_timer(width: DecWidth, seconds: int, left: int) -> None:
    thread = Thread(2**64 - 5)
    thread.dec.write(left, width)
    expiry = thread.dec.expiry(thread.timebase, width)
    thread.source.advance(seconds * FREQUENCY)
    thread.dec.load(expiry)
    assert thread.dec.asserted(width) == (seconds > 0 or left < 0)
    # And not at the next exit and entry either, while the guest does not let it through.
    thread.source.advance(10)
    again = thread.dec.expiry(thread.timebase, width)
    thread.source.advance(seconds * FREQUENCY)
    thread.dec.load(again)
    late = seconds > 0 or left < 10
    assert thread.dec.asserted(width) == late
    assert (remaining(again, thread.clock.now()) < Ticks(0)) == late
    thread.dec.write(1000, width)
    assert not thread.dec.asserted(width)


@pytest.mark.parametrize("seconds", [5, 10])
def test_a_machine_suspended_while_the_guest_ran_loses_no_timer(seconds: int) -> None:
    thread = Thread(source=Steps())
    thread.dec.write(1000, 32)
    assert not thread.dec.asserted(32)
    thread.source.advance(seconds * FREQUENCY)
    assert thread.dec.asserted(32)
    thread.source.advance(1)
    assert thread.dec.asserted(32)
    expiry = thread.dec.expiry(thread.timebase, 32)
    thread.dec.load(expiry)
    assert thread.dec.asserted(32)


def test_in_virtual_time_it_does_not_matter_how_seldom_a_thread_asks() -> None:
    """How often it asks is a matter of what executes the guest, and must not be seen by the guest."""
    often, seldom = Thread(), Thread()
    for thread in (often, seldom):
        thread.dec.write(1000, 32)
        thread.dec.asserted(32)
    for asks in (False, True):
        for _ in range(5):
            often.source.advance(1 << 29)
            often.dec.asserted(32)
        seldom.source.advance(5 << 29)
        assert seldom.dec.asserted(32) == often.dec.asserted(32) == asks
        assert seldom.dec.expiry(seldom.timebase, 32) == often.dec.expiry(often.timebase, 32)


def test_a_guest_that_lets_it_wrap_under_its_eyes_has_it_later_as_on_hardware() -> None:
    thread = Thread()
    thread.dec.write(2**31, 32)
    assert thread.dec.asserted(32)
    thread.source.advance(10)
    assert not thread.dec.asserted(32)
    expiry = thread.dec.expiry(thread.timebase, 32)
    thread.dec.load(expiry)
    assert not thread.dec.asserted(32)
    thread.source.advance(2**31 - 10)
    assert not thread.dec.asserted(32)
    thread.source.advance(1)
    assert thread.dec.asserted(32)


@given(words, offsets, offsets)
def test_rebasing_keeps_what_the_guest_sees(expiry: int, old: Offset, new: Offset) -> None:
    host = HostTime(expiry)
    assert rebased(host, old, new) + new == host + old
    assert rebased(host, old, old) == host


@given(
    st.integers(-(2**30), 2**31 - 1),
    words,
    words,
    offsets,
    st.integers(0, 2**33),
    st.integers(0, 2**20),
    st.integers(0, 2**30),
)
def test_dec_is_the_same_function_of_guest_time_before_and_after_a_move(
    value: int, origin: int, new_origin: int, offset: Offset, downtime: int, flight: int, later: int
) -> None:
    source = VirtualTime()
    old, new = Thread(origin, source), Thread(new_origin, source)
    applied = Switch().enter(old.timebase, offset)
    old.dec.write(value, 32)
    expires = old.timebase.read() + value
    source.advance(1000)
    Switch().leave(old.timebase, applied)
    kept = old.dec.expiry(old.timebase, 32) + offset
    stopped = old.clock.now() + offset
    source.advance(downtime + flight)
    moved = plan(Sample(stopped), Exchange(Ticks(downtime), Ticks(0), Ticks(flight), new.clock.now()))
    source.advance(moved.wait.value)
    Switch().enter(new.timebase, moved.offset)
    new.dec.load(kept - moved.offset)
    late = (new.timebase.read() - expires + 2**63) % 2**64 - 2**63
    assert new.dec.asserted(32) == (late > 0)
    source.advance(later)
    assert (new.dec.read(32) + new.timebase.read() - expires) % 2**32 == 0
    assert new.dec.expired == (late + later > 0)
