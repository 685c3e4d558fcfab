"""Dispatches as the guest finds them logged: why, after which waits, which of them, and what goes along on a
move.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_guests import SECOND, Guest, branch, hcall, mtdec, power8, run_together, spin, user_call

import chronovisor as cv
from chronovisor.hypervisor.exits import Exit, Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.run_queue import TIME_SLICE
from chronovisor.hypervisor.scheduler import QUANTUM
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.papr.dispatch_log import from_ring
from chronovisor.papr.hcalls import Hcall
from chronovisor.papr.vpa import (
    DTL_ENTRY_SIZE,
    VPA_DISPERSION_COUNT,
    VPA_DTL_ENABLE_MASK,
    VPA_DTL_INDEX,
    VPA_ENQUEUE_DISPATCH_TB,
    VPA_READY_ENQUEUE_TB,
    VPA_WAIT_READY_TB,
    VPA_YIELD_COUNT,
    AreaField,
    DispatchLogEntry,
    DispatchReason,
    LogEvents,
    PreemptReason,
)
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GuestTime, Offset

VPA, LOG, PLACES = 0x8000, 0x9000, 60
EVERYTHING = LogEvents.CEDE | LogEvents.PREEMPT | LogEvents.FAULT
INSTRUCTION = 256
"""Ticks that one takes."""
SLICE = TIME_SLICE.value
SLICE_AND_TURN = SLICE + (QUANTUM + 20) * INSTRUCTION
"""A time slice ends with the turn in which it runs out."""
CEDE_FOR = [mtdec(7), *hcall(Hcall.CEDE), *user_call()]


def put(guest: Guest, field: AreaField, value: int) -> None:
    guest.memory.write(VPA + field.offset, field.pack(value))


def get(guest: Guest, field: AreaField) -> int:
    return field.unpack(guest.memory.read(VPA + field.offset, field.size))


def logging(guest: Guest, vcpu: VirtualCpu, mask: int = EVERYTHING) -> VirtualCpu:
    put(guest, VPA_DTL_ENABLE_MASK, mask)
    vcpu.areas.set_vpa(VPA)
    vcpu.areas.set_dispatch_trace_log(LOG, PLACES * DTL_ENTRY_SIZE)
    return vcpu


def entries(guest: Guest) -> tuple[DispatchLogEntry, ...]:
    log = from_ring(guest.memory.read(LOG, PLACES * DTL_ENTRY_SIZE), get(guest, VPA_DTL_INDEX))
    assert not log.lost
    return log.entries


def sleeper(source: VirtualTime, timer: int = 1 << 30) -> tuple[Guest, VirtualCpu]:
    """A vCPU that cedes at 0x1000, and whose interrupts end its run."""
    guest = Guest(Hypervisor(source, origin=0x1234_0000_0000))
    for vector in (0x100, 0x500, 0x900):
        guest.code(vector, user_call())
    vcpu = logging(guest, guest.vcpu(0, guest.code(0x1000, CEDE_FOR)))
    vcpu.state.gpr[7] = timer
    return guest, vcpu


# Why


@given(timer=st.integers(1, 1 << 31).map(lambda n: n - 1), offset=st.integers(0, 1 << 20))
def test_a_decrementer_wakes_after_the_wait_that_it_was_set_to(timer: int, offset: int) -> None:
    guest, vcpu = sleeper(VirtualTime(), timer)
    vcpu.set_offset(Offset(offset << 24))
    assert isinstance(vcpu.run(), Hypercall)
    first, *rest = entries(guest)
    assert first.preempt_reason == PreemptReason.FIRMWARE_EVENT
    if timer < 4 * INSTRUCTION:
        # It expired before the thread was out of the guest.
        return
    (woken,) = rest
    assert woken.preempt_reason == PreemptReason.CEDE
    assert woken.dispatch_reason == DispatchReason.DECREMENTER_INTERRUPT
    assert woken.enqueue_to_dispatch == woken.ready_to_enqueue == 0
    # mtdec is the first instruction, H_CEDE the third; the way out and in takes the switch's accesses.
    switch = 4 * INSTRUCTION if offset else 0
    assert timer - 4 * INSTRUCTION - switch <= woken.waiting_to_ready <= timer
    assert 0 <= woken.timebase - first.timebase - timer <= 4 * INSTRUCTION + switch
    assert get(guest, VPA_WAIT_READY_TB) == woken.waiting_to_ready
    assert get(guest, VPA_ENQUEUE_DISPATCH_TB) == get(guest, VPA_READY_ENQUEUE_TB) == 0


@pytest.mark.parametrize(
    ("wake", "reason"),
    [
        (lambda vcpu: vcpu.set_external(True), DispatchReason.EXTERNAL_INTERRUPT),
        (lambda vcpu: vcpu.prod(), DispatchReason.PROD),
        (lambda vcpu: setattr(vcpu.pending, "system_reset", True), DispatchReason.SYSTEM_RESET),
        # Of two at once the one that interrupts first.
        (
            lambda vcpu: (vcpu.set_external(True), setattr(vcpu, "decrementer_expiry", GuestTime(1))),
            DispatchReason.EXTERNAL_INTERRUPT,
        ),
    ],
)
def test_what_ended_a_cede_is_logged(wake: Any, reason: DispatchReason) -> None:
    source = VirtualTime()
    guest, vcpu = sleeper(source)
    source.call_at(1_000_000, lambda: (wake(vcpu), vcpu.host.scheduler.changed()))
    assert isinstance(vcpu.run(), Hypercall)
    woken = entries(guest)[1]
    assert (woken.dispatch_reason, woken.preempt_reason) == (reason, PreemptReason.CEDE)
    assert woken.waiting_to_ready == 1_000_000 - 3 * INSTRUCTION


def test_a_thread_that_looks_late_was_ready_when_its_timer_expired() -> None:
    source = VirtualTime()
    guest, vcpu = sleeper(source, 1_000_000)
    # The machine does something else for a while, and the moment is in the middle of it.
    source.call_at(500_000, lambda: source.advance(2_000_000))
    assert isinstance(vcpu.run(), Hypercall)
    woken = entries(guest)[1]
    assert woken.dispatch_reason == DispatchReason.DECREMENTER_INTERRUPT
    assert woken.waiting_to_ready == pytest.approx(1_000_000, abs=4 * INSTRUCTION)
    assert woken.ready_to_enqueue == pytest.approx(1_500_000, abs=4 * INSTRUCTION)
    assert woken.enqueue_to_dispatch == 0
    assert get(guest, VPA_READY_ENQUEUE_TB) == woken.ready_to_enqueue


def test_a_cede_that_user_space_ended_was_not_woken() -> None:
    source = VirtualTime()
    guest, vcpu = sleeper(source)
    source.call_at(1_000_000, vcpu.kick)
    assert vcpu.run() == Kicked()
    source.advance(SECOND)
    assert isinstance(vcpu.run(), Hypercall)
    entry = entries(guest)[1]
    assert entry.preempt_reason == PreemptReason.CEDE
    assert entry.dispatch_reason == DispatchReason.FIRMWARE_EVENT
    assert entry.waiting_to_ready == entry.enqueue_to_dispatch == 0


def test_time_in_user_space_is_no_wait() -> None:
    source = VirtualTime()
    guest = Guest(Hypervisor(source))
    vcpu = logging(guest, guest.vcpu(0, guest.code(0x1000, [*user_call(), *user_call()])))
    vcpu.run()
    source.advance(SECOND)
    vcpu.run()
    entry = entries(guest)[1]
    assert (entry.dispatch_reason, entry.preempt_reason) == (
        DispatchReason.FIRMWARE_EVENT,
        PreemptReason.FIRMWARE_EVENT,
    )
    assert entry.enqueue_to_dispatch == entry.ready_to_enqueue == entry.waiting_to_ready == 0


# Waits for a core


def one_run_each(vcpus: list[VirtualCpu]) -> None:
    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        assert isinstance(ended, Hypercall)
        return False

    run_together(vcpus, one_run)


def test_waiting_for_a_core_is_in_the_log_and_in_the_area() -> None:
    """Two virtual cores on one core: what one does not run it waits, to the tick, and it all is stolen."""
    source = VirtualTime()
    guest = Guest(power8(source, threads=1))
    work = [*spin(30_000), *spin(30_000), *user_call()]
    vcpus = [guest.vcpu(n, guest.code(0x1000 * (n + 1), work)) for n in (0, 1)]
    logging(guest, vcpus[1])
    one_run_each(vcpus)
    first, *sliced = entries(guest)
    assert len(sliced) >= 2, "the virtual cores did not take turns"
    assert all(e.preempt_reason == PreemptReason.TIME_SLICE for e in sliced)
    assert all(e.dispatch_reason == DispatchReason.TIME_SLICE for e in sliced)
    # The other had a time slice before each dispatch, and what it had left before the last.
    assert all(SLICE <= e.enqueue_to_dispatch < SLICE_AND_TURN for e in (first, *sliced[:-1]))
    assert all(e.ready_to_enqueue == e.waiting_to_ready == 0 for e in (first, *sliced))
    stolen = get(guest, VPA_ENQUEUE_DISPATCH_TB)
    assert stolen == sum(e.enqueue_to_dispatch for e in (first, *sliced))
    assert stolen + vcpus[1].purr.value == source.ticks()


def test_the_own_virtual_cores_way_out_is_not_stolen() -> None:
    """A vCPU finds its virtual core on its way out of its core until 1000; then another has it until 5000."""
    source = VirtualTime()
    guest = Guest(power8(source, threads=4), stride=4)
    host, vcpu, sibling = guest.host, guest.vcpu(0, 0x1000), guest.vcpu(1, 0x1000)
    (core,), vcore, other = host.cores, vcpu.vcore, guest.vcpu(4, 0x1000).vcore
    host.scheduler.take_turn(vcpu.seat)
    stays = host.run_queue.stays
    stays[0] = vcore.stay = Stay(core, vcore, sibling)
    vcore.stay.leaving = True

    def released() -> None:
        assert vcore.stay is not None
        host.world_switch._release(vcore.stay, vcore)
        stays[0] = Stay(core, other, sibling)

    source.call_at(1000, released)
    source.call_at(5000, lambda: stays.__setitem__(0, None))
    with host.scheduler.monitor:
        assert host.world_switch._wait_for_core(vcpu)
    assert source.ticks() == 5000
    assert vcpu.next_dispatch.enqueued == 4000


def test_a_wait_for_the_core_is_told_once() -> None:
    """Another virtual core has the core until 5000; the exits to user space after that steal nothing."""
    source = VirtualTime()
    guest = Guest(power8(source, threads=1))
    vcpu = logging(guest, guest.vcpu(0, guest.code(0x1000, [*user_call(), *user_call()])))
    (core,), other, stays = guest.host.cores, guest.vcpu(1, 0x1000), guest.host.run_queue.stays
    stays[0] = Stay(core, other.vcore, other)
    source.call_at(5000, lambda: stays.__setitem__(0, None))
    for _ in range(2):
        assert isinstance(vcpu.run(), Hypercall)
    assert [entry.enqueue_to_dispatch for entry in entries(guest)] == [5000, 0]
    assert get(guest, VPA_ENQUEUE_DISPATCH_TB) == 5000


def test_a_vcpu_that_wakes_while_another_has_the_core_waits_in_both_ways() -> None:
    """It cedes, its timer expires in the middle of the other's time slice: asleep up to then, stolen from
    then on.
    """
    source = VirtualTime()
    guest = Guest(power8(source, threads=1))
    guest.code(0x900, user_call())
    sleeps = logging(guest, guest.vcpu(0, guest.code(0x1000, CEDE_FOR)))
    sleeps.state.gpr[7] = SLICE // 4
    hog = guest.vcpu(1, guest.code(0x2000, [*spin(30_000), *spin(30_000), *user_call()]))
    one_run_each([sleeps, hog])
    woken = entries(guest)[1]
    assert woken.dispatch_reason == DispatchReason.DECREMENTER_INTERRUPT
    assert woken.preempt_reason == PreemptReason.CEDE
    assert woken.waiting_to_ready == pytest.approx(SLICE // 4, abs=10 * INSTRUCTION)
    # The time slice began when the hog got the core; nobody waited for it then.
    together = woken.waiting_to_ready + woken.ready_to_enqueue + woken.enqueue_to_dispatch
    assert SLICE <= together < SLICE_AND_TURN
    # The hog's turn may end behind the expiry.
    assert woken.ready_to_enqueue <= QUANTUM * INSTRUCTION


def test_dispatches_on_another_processor_are_counted() -> None:
    guest = Guest(Hypervisor(VirtualTime(), cores=2))
    vcpu = logging(guest, guest.vcpu(0, guest.code(0x1000, [*user_call(), branch(-2)])))
    first, _ = guest.host.cores
    other = guest.vcpu(1, 0x1000)
    stay = Stay(first, other.vcore, other)
    for taken in (None, None, stay, stay, None, stay):
        guest.host.run_queue.stays[0] = taken
        assert isinstance(vcpu.run(), Hypercall)
    assert [entry.processor_id for entry in entries(guest)] == [0, 0, 1, 1, 0, 1]
    assert get(guest, VPA_DISPERSION_COUNT) == 3


# Which


def scenario(mask: int) -> tuple[list[PreemptReason], list[DispatchLogEntry]]:
    """Time slices, a cede and calls to user space, logged under `mask`: the preemptions that there were, and
    the log.
    """
    source = VirtualTime()
    guest = Guest(power8(source, threads=1))
    guest.code(0x900, [*spin(30_000), *user_call(), *user_call()])
    busy = logging(guest, guest.vcpu(0, guest.code(0x1000, CEDE_FOR)), mask)
    busy.state.gpr[7] = SLICE // 4
    hog = guest.vcpu(1, guest.code(0x2000, [*spin(30_000)] * 3 + user_call()))
    dispatched: list[PreemptReason] = []
    log = busy.log.dispatched

    def spy(stay: Any, thread: Any, dispatch: Any) -> Any:
        dispatched.append(dispatch.preempted_by)
        return log(stay, thread, dispatch)

    busy.log.dispatched = spy  # type: ignore[method-assign]
    calls = iter([True, False])
    run_together([busy, hog], lambda vcpu, ended: vcpu is busy and next(calls))
    return dispatched, list(entries(guest))


@pytest.mark.parametrize("mask", range(8))
def test_the_mask_says_after_which_preemptions_a_dispatch_is_logged(mask: int) -> None:
    dispatched, logged = scenario(mask)
    assert {*dispatched} == {PreemptReason.FIRMWARE_EVENT, PreemptReason.CEDE, PreemptReason.TIME_SLICE}
    assert [e.preempt_reason for e in logged] == [
        reason for reason in dispatched if mask & LogEvents.of(reason)
    ]


# A move


def test_counts_go_on_where_they_stood_when_the_guest_moved_here() -> None:
    """User space registers what the guest's memory, which came first, has already counted."""
    guest = Guest(Hypervisor(VirtualTime()))
    vcpu = guest.vcpu(0, guest.code(0x1000, user_call()))
    put(guest, VPA_DTL_INDEX, 1000)
    put(guest, VPA_YIELD_COUNT, 77)
    put(guest, VPA_ENQUEUE_DISPATCH_TB, 55)
    logging(guest, vcpu)
    vcpu.run()
    assert get(guest, VPA_DTL_INDEX) == 1001
    assert get(guest, VPA_YIELD_COUNT) == 79
    assert get(guest, VPA_ENQUEUE_DISPATCH_TB) == 55
    at = LOG + 1000 % PLACES * DTL_ENTRY_SIZE
    assert DispatchLogEntry.unpack(guest.memory.read(at, DTL_ENTRY_SIZE)).srr0 == 0x1000
    assert not any(guest.memory.read(LOG, 48)), "written at the ring's beginning"


def test_what_is_logged_is_dirty() -> None:
    guest = Guest(Hypervisor(VirtualTime()))
    vcpu = logging(guest, guest.vcpu(0, guest.code(0x1000, [*user_call(), *user_call()])))
    vcpu.run()
    guest.memory.dirty.take()
    vcpu.run()
    assert guest.memory.dirty.take() == [VPA >> 12, LOG >> 12]


def test_a_whole_guest_moves_with_its_log() -> None:
    """Entries and counters go on over a move, in the guest's own time."""
    time = cv.VirtualTime()
    home = cv.Host(clock=time, engine="concrete", tb_origin=0x4321_0000_0000)
    away = cv.Host(clock=time, engine="concrete", tb_origin=7)
    guest = home.boot("demo-le.elf", "2M")
    assert guest.run_until("watching")
    before = guest.dispatch_log()
    yields = yield_count(guest)
    guest, _ = cv.move(guest, away)
    guest.run_for(cv.Ticks(SECOND // 20))
    after = guest.dispatch_log()
    assert before.first == 0
    assert after.first is not None
    kept = before.entries[after.first :]
    assert after.entries[: len(kept)] == kept
    times = [e.timebase for e in after.entries]
    assert len(times) > len(kept) > 0
    assert times == sorted(times)
    assert yield_count(guest) > yields
    guest.console.type(b"q")
    assert guest.run().ok
    assert " outside=0 " in guest.console_text


def yield_count(guest: cv.Guest) -> int:
    return guest.memory.load(guest.get("VPA_ADDR") + VPA_YIELD_COUNT.offset, 4, little=False)
