"""Mistakes about time that are to be seen in Linux's KVM (Book3S HV) still, up to 6.12, and what we hold
against them.

Told as in `test_history_of_the_feature.py`, which says what of all this cannot happen here.
"""

from __future__ import annotations

from typing import Any

import pytest
from episode import Episode, counted, ended
from little_guests import GRANULE, SECOND, Guest, hcall, lis, mfdec, mftb, mtdec, power8, spin, user_call

from chronovisor.hypervisor import timer, vpa
from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.hypervisor import Hypervisor, taking_time
from chronovisor.hypervisor.vpa import Areas, Function
from chronovisor.memory.guest_memory import PAGE_SHIFT, GuestMemory
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.papr.vpa import (
    VPA_DTL_ENABLE_MASK,
    VPA_DTL_INDEX,
    VPA_ENQUEUE_DISPATCH_TB,
    VPA_LENGTH,
    VPA_SIZE,
    VPA_YIELD_COUNT,
)
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.decrementer import Decrementer
from chronovisor.timebase.offset import Shift, Shifter, Switch, shift
from chronovisor.timebase.tbu40 import TimebaseRegister
from chronovisor.timebase.trace import Wrapped
from chronovisor.timebase.types import GuestTime, HostTime, Offset, Ticks, signed64

AHEAD = Offset(1 << 40)
VPA, LOG = 0x8000, 0xA000


class TestNoTimeFromBeforeAWrapIsKept(Episode):
    """POWER9's entry, since 5.17, computes the timebase after the switch instead of reading it.

    If the low 24 bits wrapped during the switch, the computed value is up to 32.8 ms ahead of the timebase,
    and the decrementer that is loaded from it is that early.
    Invariant: after a switch the time is read afresh.
    """

    goes_wrong = "early"
    shifter: Shifter = staticmethod(shift)

    def story(self) -> None:
        told: list[object] = []
        source = VirtualTime()
        # The first reading of the entry takes 256 ticks; the wrap comes in them.
        host = Hypervisor(source, origin=GRANULE - 100, observer=told.append)
        host.switch = Switch(taking_time(self.shifter, host.scheduler, host.ticks_per_instruction))
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, [mftb(4), mfdec(5), *user_call()]))
        vcpu.set_offset(AHEAD)
        expiry = (host.clock.now() + AHEAD).value + SECOND
        vcpu.decrementer_expiry = GuestTime(expiry)
        timebase, dec = ended(vcpu)[:2]
        assert any(isinstance(event, Wrapped) for event in told), "nothing wrapped: this shows nothing"
        assert timebase + 256 + dec == expiry, f"the decrementer is {expiry - timebase - dec} ticks early"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        load = Decrementer.load
        ahead = 0

        def remembering(tb: TimebaseRegister[int], delta: int) -> Shift[int]:
            nonlocal ahead
            done = shift(tb, delta)
            ahead = signed64(done.written + GRANULE - tb.read()) if done.wrapped else 0
            return done

        def with_what_was_computed(self: Decrementer, expiry: HostTime, *more: Any) -> Any:
            result = load(self, expiry, *more)
            self.deadline -= ahead
            return result

        patch.setattr(self, "shifter", remembering)
        patch.setattr(Decrementer, "load", with_what_was_computed)


class TestAnOffsetIsAMultipleOf2ToThe24(Episode):
    """A nested guest's offset is added as its hypervisor gives it, whatever its low 24 bits are.

    TBU40 cannot add those, so each entry and exit takes the wrap check for what it is not, and leaves the
    host's timebase 2^24 ticks ahead: a guest can make its host's clock run.
    Invariant: what is no multiple of 2^24 cannot become an offset.
    """

    goes_wrong = "host's timebase"

    def story(self) -> None:
        host = Hypervisor(VirtualTime(), origin=0x1234_5678)
        guest = Guest(host)
        vcpu = guest.vcpu(0, guest.code(0, user_call()))
        vcpu.set_offset(Offset.rounded_up(5 * GRANULE + GRANULE // 2))
        for _ in range(10):
            vcpu.state.CIA = 0
            ended(vcpu)
            assert not host.check_sync(), "a guest moved its host's timebase"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        def anything(self: Offset, value: int) -> None:
            self.value = value

        patch.setattr(Offset, "__init__", anything)
        patch.setattr(Offset, "rounded_up", classmethod(lambda cls, value: cls(value)))


class TestTimesAreComparedByTheirDifference(Episode):
    """Whether a timer is due is asked by an unsigned comparison: now > expiry.

    An expiry from before the host's timebase began is a huge one, and a guest that waits for it is never
    woken.
    Invariant: two times are compared by the sign of their difference.
    """

    goes_wrong = "never woken"

    def story(self) -> None:
        source = VirtualTime()
        guest = Guest(power8(source), stride=2)
        guest.code(0x900, user_call())
        vcpu = guest.vcpu(0, guest.code(0x1000, [lis(7, 0x7FFF), mtdec(7), *hcall(Hcall.CEDE), *spin(9)]))
        sibling = guest.vcpu(1, 0)

        def jump() -> None:
            with sibling.access():
                sibling.set_offset(AHEAD)

        source.call_at(1_000_000, jump)
        ended(vcpu)
        assert source.ticks() < SECOND

    def without(self, patch: pytest.MonkeyPatch) -> None:
        asked = 0

        def unsigned(expiry: HostTime, now: HostTime) -> Ticks:
            nonlocal asked
            asked += 1
            assert asked < 10_000, "it is never woken"
            return Ticks(-1 if now.value > expiry.value else 1)

        patch.setattr(timer, "remaining", unsigned)


class TestWaitsAddUpOverMoves(Episode):
    """POWER9's path writes what a vCPU waited on this host over the counter in the VPA.

    A guest that moved in sees the counter step back, to what it waited here.
    Invariant: counters in a guest's memory are added to.
    """

    goes_wrong = "back"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime()))
        vcpu = guest.vcpu(0, guest.code(0, user_call()))
        counter = VPA + VPA_ENQUEUE_DISPATCH_TB.offset
        guest.memory.store(counter, 8, 12345, little=False)
        vcpu.areas.set_vpa(VPA)
        ended(vcpu)
        assert guest.memory.load(counter, 8, little=False) >= 12345, "the counter of waits stepped back"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        counted(patch, lambda before, after: after - before)


class TestCountsGoOnOverMoves(Episode):
    """User space that sets the addresses of the VPA and the log at a destination makes their counts begin
    anew.

    A guest that moved finds its yield count at 1 and its log's index at 0: entries that it has not read are
    lost to it, and old ones are taken for new.
    Invariant: what comes along in the guest's memory goes on there.
    """

    goes_wrong = "anew"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime()))
        vcpu = guest.vcpu(0, guest.code(0, user_call()))
        for field, value in ((VPA_YIELD_COUNT, 1001), (VPA_DTL_INDEX, 400), (VPA_DTL_ENABLE_MASK, 7)):
            guest.memory.store(VPA + field.offset, field.size, value, little=False)
        vcpu.areas.set_vpa(VPA)
        vcpu.areas.set_dispatch_trace_log(LOG, 4096)
        ended(vcpu)
        counts = [
            guest.memory.load(VPA + field.offset, field.size, little=False)
            for field in (VPA_YIELD_COUNT, VPA_DTL_INDEX)
        ]
        assert counts == [1003, 401], f"what was counted begins anew: {counts}"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        ask_for = vpa.Area.ask_for

        def anew(self: vpa.Area, address: int, length: int, goes_on: bool = False) -> None:
            ask_for(self, address, length)

        patch.setattr(vpa.Area, "ask_for", anew)


class TestTheLogsPageIsDirty(Episode):
    """Since 6.1 nobody marks the page of the dispatch trace log as dirty: a move can leave old entries
    behind.

    Invariant: whatever the hypervisor writes into a guest's memory is in the dirty log.
    """

    goes_wrong = "dirty"

    def story(self) -> None:
        guest = Guest(Hypervisor(VirtualTime()))
        vcpu = guest.vcpu(0, guest.code(0, user_call()))
        guest.memory.store(VPA + VPA_DTL_ENABLE_MASK.offset, 1, 7, little=False)
        vcpu.areas.set_vpa(VPA)
        vcpu.areas.set_dispatch_trace_log(LOG, 4096)
        guest.memory.dirty.take()
        before = guest.memory.read(LOG, 4096)
        ended(vcpu)
        assert guest.memory.read(LOG, 4096) != before
        dirty = set(guest.memory.dirty.take())
        assert {VPA >> PAGE_SHIFT, LOG >> PAGE_SHIFT} <= dirty, "a page that was written is not dirty"

    def without(self, patch: pytest.MonkeyPatch) -> None:
        dispatched = DispatchLogWriter.dispatched

        def unmarked(self: DispatchLogWriter, *how: Any) -> GuestTime | None:
            moment = dispatched(self, *how)
            self._vcpu.memory.dirty.pages[LOG >> PAGE_SHIFT] = 0
            return moment

        patch.setattr(DispatchLogWriter, "dispatched", unmarked)


class TestAVpaIsWithinAPage(Episode):
    """A VPA is refused only if it crosses a page of the *host*, of 64 KiB; the interface says 4 KiB.

    Invariant: what the interface says, whatever the pages below are.
    """

    goes_wrong = "taken"

    def story(self) -> None:
        memory, areas = GuestMemory(1 << 20), Areas()
        address = VPA + 4096 - 128
        memory.store(address + VPA_LENGTH.offset, VPA_LENGTH.size, VPA_SIZE, little=False)
        status = areas.call(Function.REGISTER_VPA, address, memory)
        assert status is Status.PARAMETER, "a VPA across a page was taken"
        assert not areas.vpa.registered

    def without(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(vpa, "PAGE_SIZE", 1 << 16)
