"""The promises P1 to P4, P7 and P8 over random courses of entries, exits, offsets, timers, sleeps and
pauses.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from little_guests import (
    SECOND,
    Guest,
    branch,
    hcall,
    li,
    mfdec,
    mftb,
    mtdec,
    power8,
    spin,
    user_call,
)

from chronovisor.hypervisor.exits import Hypercall
from chronovisor.papr.hcalls import Hcall
from chronovisor.papr.vpa import DTL_ENTRY_SIZE, VPA_DTL_ENABLE_MASK, VPA_DTL_INDEX
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import MASK64, GuestTime, HostTime, Offset

RUN, TIMER, WAIT, TIMER_AND_CEDE = 0x1000, 0x1100, 0x1200, 0x1300
VPA, LOG = 0x8000, 0x9000
VCPUS = 4

who = st.integers(0, VCPUS - 1)
offsets = st.one_of(
    st.integers(0, (1 << 40) - 1).map(lambda n: Offset(n << 24)),
    st.integers(0, 1 << 8).map(lambda n: Offset(n << 24)),
)


class Promises(RuleBasedStateMachine):
    """Two virtual cores of two threads on one host; each rule does one thing, each invariant holds behind
    each.
    """

    @initialize(origin=st.integers(0, MASK64))
    def begin(self, origin: int) -> None:
        self.source = VirtualTime()
        self.host = power8(self.source, threads=2, cores=1, origin=origin)
        self.guest = Guest(self.host, stride=2)
        code = self.guest.code
        code(RUN, [mftb(4), mfdec(5), *user_call()])
        code(TIMER, [mtdec(7), mftb(4), *user_call()])
        code(WAIT, [mftb(4), *spin(2000), mftb(5), *user_call()])
        code(TIMER_AND_CEDE, [mtdec(7), *hcall(Hcall.CEDE), mftb(4), li(6, 0), *user_call()])
        code(0x500, [li(6, 0x500), mftb(4), mfdec(5), *user_call(), branch(0)])
        code(0x900, [li(6, 0x900), mftb(4), mfdec(5), *user_call(), branch(0)])
        self.vcpus = [self.guest.vcpu(number, RUN) for number in range(VCPUS)]
        for number, vcpu in enumerate(self.vcpus):
            vpa = VPA + 0x2000 * number
            self.guest.memory.write(vpa + VPA_DTL_ENABLE_MASK.offset, VPA_DTL_ENABLE_MASK.pack(7))
            vcpu.areas.set_vpa(vpa)
            vcpu.areas.set_dispatch_trace_log(LOG + 0x2000 * number, 4096)
        self.last: dict[int, HostTime] = {}
        self.offset_of_last_run: dict[int, Offset] = {}
        self.entered_with: Offset | None = None

    def run_at(self, number: int, pc: int) -> tuple[int, ...]:
        """Run a vCPU from `pc` with interrupts off until its hypercall; return r4 and on."""
        vcpu = self.vcpus[number]
        vcpu.state.CIA = pc
        vcpu.state.set_msr(0x8000_0000_0000_1001)
        self.entered_with = vcpu.vcore.offset
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        return ended.args

    def read(self, number: int, reading: int) -> None:
        """P2, P4: the reading less the offset of its entry is host time, not in the future, never behind
        the last.
        """
        assert self.entered_with is not None
        moment = GuestTime(reading) - self.entered_with
        assert (self.host.clock.now() - moment).value >= 0
        if number in self.last:
            assert (moment - self.last[number]).value >= 0
        self.last[number] = moment
        self.offset_of_last_run[number] = self.entered_with

    @rule(number=who)
    def enter_and_exit(self, number: int) -> None:
        expiry = self.vcpus[number].decrementer_expiry
        timebase, dec = self.run_at(number, RUN)[:2]
        self.read(number, timebase)
        # P7: DEC + G is the expiry, 32 bits of it, one instruction after the reading of G.
        assert (dec + timebase + 256 - expiry.value) & 0xFFFF_FFFF == 0

    @rule(number=who, ticks=st.integers(1, 0x7FFF_FFFF))
    def set_a_timer(self, number: int, ticks: int) -> None:
        self.vcpus[number].state.gpr[7] = ticks
        timebase = self.run_at(number, TIMER)[0]
        self.read(number, timebase)
        assert self.vcpus[number].decrementer_expiry == GuestTime(timebase - 256 + ticks)

    @rule(number=who, ticks=st.integers(1, 3 * SECOND))
    def sleep_until_a_timer(self, number: int, ticks: int) -> None:
        """P7: neither early nor late, and never lost."""
        vcpu = self.vcpus[number]
        vcpu.state.gpr[7] = ticks & 0x7FFF_FFFF
        reading, dec, why = self.run_at(number, TIMER_AND_CEDE)[:3]
        if why == 0x900:
            late = (1 << 32) - 1 - dec
            assert 0 <= late < 20 * 256, "the timer came early or late"
        self.read(number, reading)

    @rule(number=who, offset=offsets)
    def set_an_offset(self, number: int, offset: Offset) -> None:
        """P3, P7: the last writer wins; expiries in guest time stay."""
        before = [vcpu.decrementer_expiry for vcpu in self.vcpus]
        self.vcpus[number].set_offset(offset)
        for vcpu, expiry in zip(self.vcpus, before, strict=True):
            if vcpu.number != number or expiry != GuestTime(0):
                assert vcpu.decrementer_expiry == expiry
        assert self.vcpus[number].vcore.offset == offset

    @rule(number=who, offset=offsets, after=st.integers(1, 2000 * 256))
    def a_sibling_sets_an_offset_meanwhile(self, number: int, offset: Offset, after: int) -> None:
        sibling = self.vcpus[number ^ 1]
        before = self.vcpus[number].decrementer_expiry, sibling.decrementer_expiry
        self.source.call_at(self.source.ticks() + after, lambda: sibling.set_offset(offset))
        first, last = self.run_at(number, WAIT)[:2]
        self.read(number, first)
        self.read(number, last)
        assert (last - first) & MASK64 == 2003 * 256
        assert sibling.vcore.offset == offset
        # The register has 32 bits; what of the expiry is beyond them the exit makes of the sign.
        assert (self.vcpus[number].decrementer_expiry - before[0]).value % (1 << 32) == 0
        if before[1] != GuestTime(0):
            assert sibling.decrementer_expiry == before[1]

    @rule(number=who, expiry=st.integers(-20 * SECOND, 20 * SECOND))
    def user_space_sets_the_expiry(self, number: int, expiry: int) -> None:
        vcpu = self.vcpus[number]
        moment = GuestTime((self.host.clock.now() + vcpu.vcore.offset).value + expiry)
        vcpu.decrementer_expiry = moment
        assert vcpu.decrementer_expiry == moment

    @rule(ticks=st.integers(0, 12 * SECOND))
    def pause(self, ticks: int) -> None:
        self.source.advance(ticks)

    @rule(number=who)
    def prod(self, number: int) -> None:
        self.vcpus[number].prod()

    @rule(number=who)
    def raise_and_lower(self, number: int) -> None:
        self.vcpus[number].set_external(True)
        reading, _, why = self.run_at(number, TIMER_AND_CEDE)[:3]
        assert why == 0x500
        self.read(number, reading)
        self.vcpus[number].set_external(False)

    @invariant()
    def cores_are_in_step(self) -> None:
        """P1, P2."""
        assert self.host.check_sync() == []

    @invariant()
    def the_log_is_in_guest_time(self) -> None:
        """P8: the last entry lies at or before the last reading, by the offset of that entry."""
        for number, last in self.last.items():
            vpa = VPA + 0x2000 * number
            index = self.guest.memory.load(vpa + VPA_DTL_INDEX.offset, 8, little=False)
            place = LOG + 0x2000 * number + (index - 1) % 85 * DTL_ENTRY_SIZE
            logged = GuestTime(self.guest.memory.load(place + 0x10, 8, little=False))
            since = (last - (logged - self.offset_of_last_run[number])).value
            assert 0 <= since < 4000 * 256


Promises.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPromises = Promises.TestCase
