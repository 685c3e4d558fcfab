"""Entry and exit: who switches the timebase when, what is taken away, when decrementers are kept."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_guests import (
    GRANULE,
    SECOND,
    Guest,
    Log,
    branch,
    hcall,
    li,
    mfdec,
    mftb,
    mtdec,
    power8,
    run_together,
    spin,
    std,
    user_call,
    watch_readings,
)

from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.exits import Hypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.papr.hcalls import Hcall
from chronovisor.processor.cpu_model import PPC970
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.offset import Applied, Shift, Switch, shift
from chronovisor.timebase.tbu40 import CoreTimebase, HostTimebase, NoTbu40Error, TimebaseRegister
from chronovisor.timebase.trace import (
    DecrementerKept,
    HostTimeRestored,
    Observer,
    OffsetApplied,
    SecondaryLetIn,
    ThreadOut,
    Wrapped,
)
from chronovisor.timebase.types import MASK64, GuestTime, Offset, signed64

ANY64 = st.integers(0, MASK64)
OFFSETS = st.integers(0, (1 << 40) - 1).map(lambda n: Offset(n << 24))

READER = [mftb(4), mfdec(5), mftb(6), *user_call(), branch(-5)]


def test_a_thousand_entries_and_exits_leave_the_offset_and_the_expiry_alone() -> None:
    host = Hypervisor(VirtualTime(), origin=0x1234_5678_9ABC_DEF0)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.set_offset(Offset.rounded_up(0x1234567))
    expiry = vcpu.decrementer_expiry
    last = 0
    for _ in range(1000):
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        assert ended.args[0] > last
        last = ended.args[2]
        assert not host.check_sync()
    assert vcpu.vcore.offset == Offset(0x2000000)
    assert vcpu.decrementer_expiry == expiry


@given(origin=ANY64, offset=OFFSETS, pause=st.integers(0, 20 * SECOND), expiry=ANY64)
def test_the_guest_reads_host_time_plus_offset_and_dec_by_its_expiry(
    origin: int, offset: Offset, pause: int, expiry: int
) -> None:
    """P2, P7: T is exactly H + o in the guest and H outside; DEC + T is the expiry to the tick."""
    source = VirtualTime()
    host = Hypervisor(source, origin)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.set_offset(offset)
    vcpu.decrementer_expiry = GuestTime(expiry)
    for _ in range(2):
        source.advance(pause)
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        first, dec, second = ended.args[:3]
        # Since then: that instruction, li and sc, and the four accesses that take an offset away.
        since = (3 + (4 if offset else 0)) * 256
        assert second == (source.ticks() - since + origin + offset.value) & MASK64
        assert (dec + first + 256 - expiry) & 0xFFFF_FFFF == 0
        assert (second - first) & MASK64 == 512
        assert not host.check_sync()
        assert (vcpu.decrementer_expiry.value - expiry) & 0xFFFF_FFFF == 0


@given(before=st.integers(0, 1100), offset=OFFSETS.filter(bool))
def test_an_entry_around_a_wrap_of_the_low_bits(before: int, offset: Offset) -> None:
    """P1: whenever the low 24 bits wrap, on the way in or out, the timebase comes out right."""
    log = Log()
    source = VirtualTime()
    host = Hypervisor(source, origin=-before & MASK64, observer=log)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.set_offset(offset)
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert not host.check_sync()
    assert (ended.args[0] - offset.value - host.clock.now().value) & MASK64 > 1 << 63
    applied, restored = log.of(OffsetApplied), log.of(HostTimeRestored)
    assert [event.offset for event in applied] == [offset]
    assert [event.applied for event in restored] == [offset]


def test_a_wrap_is_seen_and_written_again() -> None:
    # The first reading takes an instruction's 256 ticks; the wrap comes in them.
    log = Log()
    host = Hypervisor(VirtualTime(), origin=GRANULE - 100, observer=log)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.set_offset(Offset(5 * GRANULE))
    vcpu.run()
    assert log.of(Wrapped)
    assert not host.check_sync()


def test_a_host_without_tbu40_refuses_an_offset_and_changes_nothing() -> None:
    host = Hypervisor(VirtualTime(), cpu_model=PPC970)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, [li(4, 1), *user_call()]))
    with pytest.raises(NoTbu40Error, match="TBU40"):
        vcpu.set_offset(Offset(GRANULE))
    vcpu.set_offset(Offset(0))
    assert vcpu.vcore.offset == Offset(0)
    assert isinstance(vcpu.run(), Hypercall)


def test_a_decrementer_that_was_never_set_expires_when_an_offset_is() -> None:
    """As since Linux 6.1: a guest that moved here without its timer gets it at once, not after years."""
    source = VirtualTime(5000)
    host = Hypervisor(source, origin=1000)
    guest = Guest(host)
    vcpu = guest.vcpu(0, 0)
    assert vcpu.decrementer_expiry == GuestTime(0)
    vcpu.set_offset(Offset(0))
    assert vcpu.decrementer_expiry == GuestTime(0)
    vcpu.set_offset(Offset(GRANULE))
    assert vcpu.decrementer_expiry == GuestTime(6000 + GRANULE)
    vcpu.set_offset(Offset(0))
    assert vcpu.decrementer_expiry == GuestTime(6000 + GRANULE)


# Two threads of one virtual core


def two_threads(log: Log, source: VirtualTime, offset: Offset, origin: int) -> Guest:
    """Each thread stores its first reading of the timebase, works for a while and ends its run."""
    host = power8(source, origin=origin, observer=log)
    guest = Guest(host, stride=2)
    for number in (0, 1):
        guest.code(
            0x1000 * (number + 1),
            [mftb(4), li(9, 0x100 + 8 * number), std(4, 0, 9), *spin(1500), mftb(5), *user_call()],
        )
        guest.vcpu(number, 0x1000 * (number + 1))
    guest.machine.vcpus[1].set_offset(offset)
    return guest


@pytest.mark.parametrize(
    ("origin", "wraps"),
    [
        (0x77_7777_7777, False),
        (GRANULE - 100, True),  # between the first reading of the entry and its check
        (MASK64 - 300, True),  # the whole timebase wraps there
    ],
)
def test_the_secondary_is_let_in_behind_the_switch_and_all_leave_together(origin: int, wraps: bool) -> None:
    log, source = Log(), VirtualTime()
    offset = Offset(9 * GRANULE)
    guest = two_threads(log, source, offset, origin)
    vcpus = list(guest.machine.vcpus.values())
    assert vcpus[0].vcore is vcpus[1].vcore
    run_together(vcpus)
    kinds = [
        type(event)
        for event in log.events
        if isinstance(event, OffsetApplied | SecondaryLetIn | ThreadOut | HostTimeRestored | DecrementerKept)
    ]
    both = [
        OffsetApplied,
        SecondaryLetIn,
        ThreadOut,
        ThreadOut,
        HostTimeRestored,
        DecrementerKept,
        DecrementerKept,
    ]
    assert kinds[:7] == both
    # The one that was made to leave goes on by itself.
    assert kinds[7:] == [OffsetApplied, ThreadOut, HostTimeRestored, DecrementerKept]
    for slot in (0x100, 0x108):
        read = (guest.word(slot) - offset.value - origin) & MASK64
        assert read <= source.ticks(), "a thread ran the guest in host time"
    assert bool(log.of(Wrapped)) == wraps
    assert not guest.host.check_sync()


class _BreaksDown(Switch):
    """A switch with a mistake of its own in the exit."""

    def leave(self, tb: CoreTimebase, applied: Applied, observer: Observer | None = None) -> HostTimebase:
        raise ZeroDivisionError("a mistake of ours")


def test_a_mistake_in_an_exit_loses_neither_the_core_nor_a_timer() -> None:
    source = VirtualTime()
    host = power8(source)
    host.switch = _BreaksDown()
    guest = Guest(host, stride=2)
    for number in (0, 1):
        guest.vcpu(number, guest.code(0x1000 * (number + 1), [*spin(3000), *user_call()]))
    vcpus = list(guest.machine.vcpus.values())
    vcpus[0].set_offset(Offset(9 * GRANULE))
    expiry = GuestTime(9 * GRANULE + SECOND)
    for vcpu in vcpus:
        vcpu.decrementer_expiry = expiry
    with pytest.raises(ZeroDivisionError):
        run_together(vcpus)
    assert not host.check_sync()
    assert all(vcpu.decrementer_expiry == expiry for vcpu in vcpus)
    assert all(vcpu.timer.thread is None for vcpu in vcpus), "a decrementer is left in a hardware thread"
    assert not any(host.run_queue.stays)


def test_a_sibling_sets_the_offset_while_the_virtual_core_runs() -> None:
    """P2, P3: what is taken away is what was added; the new offset holds from the next entry; expiries
    stay.
    """
    log, source = Log(), VirtualTime()
    host = power8(source, origin=0x55_0000_1234, observer=log)
    guest = Guest(host, stride=2)
    old, new = Offset(3 * GRANULE), Offset((-7 * GRANULE) & MASK64)
    runner = guest.vcpu(
        0,
        guest.code(
            0x1000,
            [
                li(7, 0x4000),
                mtdec(7),
                mftb(4),
                *spin(3000),
                mftb(5),
                *user_call(),
                mftb(4),
                mfdec(5),
                *user_call(),
            ],
        ),
    )
    sibling = guest.vcpu(1, guest.code(0x2000, user_call()))
    runner.set_offset(old)
    sibling.decrementer_expiry = GuestTime(0x1234)
    seen: list[list[str]] = []

    def set_meanwhile() -> None:
        assert runner.timer.thread is not None
        with sibling.access():
            sibling.set_offset(new)
        seen.append(host.check_sync())

    source.call_at(1000 * 256, set_meanwhile)
    ended = runner.run()
    assert isinstance(ended, Hypercall)
    assert seen == [[]]
    assert not host.check_sync()
    assert [event.applied for event in log.of(HostTimeRestored)] == [old]
    first, last = ended.args[:2]
    assert last - first == (2 + 3000 + 1) * 256
    # DEC was set one instruction before TB was read.
    assert runner.decrementer_expiry == GuestTime(first - 256 + 0x4000)
    assert sibling.decrementer_expiry == GuestTime(0x1234)
    again = runner.run()
    assert isinstance(again, Hypercall)
    guest_tb, dec = again.args[:2]
    assert 0 <= (guest_tb - new.value - host.clock.origin) & MASK64 <= source.ticks()
    assert (dec + guest_tb + 256) & 0xFFFF_FFFF == (first - 256 + 0x4000) & 0xFFFF_FFFF


@given(
    stop=st.sampled_from([5 * SECOND, 10 * SECOND, (1 << 31) + 5, (1 << 32) + 5, 100 * SECOND]),
    ceded=st.booleans(),
)
def test_a_long_stop_loses_no_timer(stop: int, ceded: bool) -> None:
    """A timer of 1 ms that expires during a stop of seconds is pending afterwards, though a 32-bit DEC is
    positive.
    """
    source = VirtualTime()
    host = Hypervisor(source, origin=0xFFFF_FFFF_0000_0000)
    guest = Guest(host)
    guest.code(0x900, [li(4, 0x900), mfdec(5), *user_call()])
    wait = hcall(Hcall.CEDE) if ceded else []
    vcpu = guest.vcpu(
        0,
        guest.code(0x1000, [li(7, 0x7000), mtdec(7), li(4, 1), *user_call(), *wait, branch(0)]),
        interrupts=True,
    )
    vcpu.set_offset(Offset(GRANULE))
    vcpu.decrementer_expiry = GuestTime(host.clock.now().value + GRANULE + SECOND)
    first = vcpu.run()
    assert isinstance(first, Hypercall)
    assert first.args[0] == 1
    source.advance(stop)
    begun = source.ticks()
    second = vcpu.run()
    assert isinstance(second, Hypercall)
    assert second.args[0] == 0x900
    assert source.ticks() - begun < 20 * 256


def test_a_thread_that_joins_a_running_core_gets_the_time_that_was_applied() -> None:
    """P2, P7: an offset that was set since the core's entry is none of the joiner's, nor of its
    decrementer's.
    """
    log, source = Log(), VirtualTime()
    host = power8(source, observer=log)
    guest = Guest(host, stride=2)
    old, new = Offset(3 * GRANULE), Offset(1000 * GRANULE)
    runner = guest.vcpu(0, guest.code(0x1000, [*spin(5000), *user_call()]))
    joiner = guest.vcpu(1, guest.code(0x2000, [mftb(4), mfdec(5), *user_call()]))
    runner.set_offset(old)
    expiry = GuestTime(0x7000_0000)
    joiner.decrementer_expiry = expiry
    ends: list[object] = []

    def run_joiner() -> None:
        ends.append(joiner.run())
        host.scheduler.unbind(joiner.seat)

    thread = threading.Thread(target=run_joiner)

    def join() -> None:
        joiner.set_offset(new)
        host.scheduler.bind(joiner.seat)
        thread.start()

    source.call_at(1000 * 256, join)
    ended = runner.run()
    thread.join(60)
    assert isinstance(ended, Hypercall)
    assert [event.offset for event in log.of(OffsetApplied)][:1] == [old]
    assert log.of(SecondaryLetIn)
    (joined,) = ends
    assert isinstance(joined, Hypercall)
    timebase, dec = joined.args[:2]
    assert 0 <= timebase - old.value <= source.ticks()
    assert dec + timebase + 256 == expiry.value
    assert joiner.decrementer_expiry == expiry


def test_an_offset_that_is_set_during_the_switch_holds_from_the_next_entry_on() -> None:
    """The owner sets the offset through a sibling at any step of an entry: the guest's timer keeps its moment
    in whichever time the guest was entered with.
    """
    old, new = Offset(5 * GRANULE), Offset(9 * GRANULE)
    during = 0
    for tick in range(0, 12 * 256, 64):
        source, log = VirtualTime(), Log()
        guest = Guest(power8(source, observer=log), stride=2)
        runner = guest.vcpu(0, guest.code(0x1000, [mftb(4), mfdec(5), *user_call()]))
        sibling = guest.vcpu(1, 0)
        runner.set_offset(old)
        expiry = GuestTime(0x6000_0000)
        runner.decrementer_expiry = expiry
        source.call_at(tick, partial(sibling.set_offset, new))
        ended = runner.run()
        assert isinstance(ended, Hypercall)
        timebase, dec = ended.args[:2]
        assert dec + timebase + 256 == expiry.value
        assert runner.decrementer_expiry == expiry
        assert [event.offset for event in log.of(OffsetApplied)] == [old]
        during += tick < timebase - old.value
    assert during > 8, "the offset was never set during the entry"


def test_an_observer_that_fails_is_told_no_more_and_breaks_nothing() -> None:
    def fail(event: object) -> None:
        raise BrokenPipeError("nobody listens")

    host = power8(VirtualTime(), observer=fail)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.set_offset(Offset(GRANULE))
    for _ in range(2):
        assert isinstance(vcpu.run(), Hypercall)
    assert host.observer is None
    assert not host.check_sync()


def test_a_mistake_at_the_entry_loses_neither_the_core_nor_the_timer() -> None:
    """Whatever goes wrong on the way in, the thread comes out again by the same way, and its siblings with
    it.
    """

    class Failing(DispatchLogWriter):
        fails = 1

        def dispatched(self, *how: Any) -> GuestTime | None:
            if Failing.fails:
                Failing.fails -= 1
                raise ZeroDivisionError("a mistake")
            return super().dispatched(*how)

    host = power8(VirtualTime())
    guest = Guest(host, stride=2)
    vcpu = guest.vcpu(0, guest.code(0, READER))
    vcpu.log = Failing(vcpu)
    vcpu.areas.set_vpa(0x8000)
    vcpu.set_offset(Offset(GRANULE))
    vcpu.decrementer_expiry = GuestTime(0x1234_5678)
    with pytest.raises(ZeroDivisionError):
        vcpu.run()
    assert not any(host.run_queue.stays)
    assert not host.check_sync()
    assert vcpu.decrementer_expiry == GuestTime(0x1234_5678)
    assert isinstance(vcpu.run(), Hypercall)
    assert vcpu.decrementer_expiry == GuestTime(0x1234_5678)


@pytest.mark.parametrize(("adjust", "what"), [(5, "out of phase by 0x5"), (GRANULE, "plus 0x1000000")])
def test_a_core_out_of_step_is_told(adjust: int, what: str) -> None:
    host = Hypervisor(VirtualTime(), cores=2)
    assert host.check_sync() == []
    host.cores[1].timebase.adjust = adjust
    (told,) = host.check_sync()
    assert "core 1" in told
    assert what in told


@pytest.mark.parametrize("slow", ["entry", "exit"])
def test_a_switch_that_takes_too_long_is_repaired_before_any_thread_runs(
    slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads; the first switch of this kind takes 2^24 ticks and more: its wrap check shows nothing."""
    watch_readings(monkeypatch)
    log, source = Log(), VirtualTime()
    offset = Offset(9 * GRANULE)
    dawdles = True

    class Dawdling:
        """A timebase register whose first write comes late."""

        def __init__(self, tb: TimebaseRegister[int]) -> None:
            self._tb = tb

        def read(self) -> int:
            return self._tb.read()

        def write_tbu40(self, value: int, when: bool = True) -> None:
            nonlocal dawdles
            if dawdles:
                dawdles = False
                source.advance(GRANULE + 4242)
            self._tb.write_tbu40(value, when)

    def shifted(tb: TimebaseRegister[int], delta: int) -> Shift[int]:
        is_entry = signed64(delta) > 0
        return shift(Dawdling(tb) if is_entry == (slow == "entry") else tb, delta)

    host = power8(source, origin=0x77_7777_7777, observer=log)
    host.switch = Switch(shifted)
    guest = Guest(host, stride=2)
    vcpus = [guest.vcpu(n, guest.code(0x1000 * (n + 1), [*spin(1500), *READER])) for n in (0, 1)]
    vcpus[0].set_offset(offset)
    run_together(vcpus)
    kinds = log.kinds()
    assert kinds.count("SwitchBreached") == 1
    if slow == "entry":
        assert kinds.index("SwitchBreached") < kinds.index("OffsetApplied") < kinds.index("SecondaryLetIn")
    else:
        assert (
            kinds.index("SwitchBreached") < kinds.index("HostTimeRestored") < kinds.index("DecrementerKept")
        )
    assert not host.check_sync()
    assert all(core.timebase.adjust == 0 for core in host.cores)
