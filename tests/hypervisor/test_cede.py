"""H_CEDE, H_PROD and what wakes: no wake is lost, whatever the order."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_guests import (
    LARGE_POWER8,
    SECOND,
    WEEKS,
    Guest,
    a_minute,
    branch,
    hcall,
    li,
    mfdec,
    mftb,
    mtdec,
    power8,
    run_together,
    spin,
    user_call,
)

from chronovisor.hypervisor.exits import Exit, Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.timebase.clock import RealTime, VirtualTime
from chronovisor.timebase.types import GuestTime, Offset

DECREMENTER = [mftb(4), mfdec(5), *user_call(), branch(0)]
"""At 0x900: end the run with the timebase and DEC at the interrupt."""

EXTERNAL = [li(4, 0x500), *user_call(), branch(0)]


def sleeper(
    host: Hypervisor, timer: int | None = None, stride: int = 1, number: int = 0
) -> tuple[Guest, VirtualCpu]:
    """A guest that sets DEC to r7, cedes, and ends its run with r4 = the status, r5 = the timebase
    afterwards. Without a `timer` DEC is not due for weeks, so something else wakes it.
    """
    guest = Guest(host, stride)
    guest.code(0x500, EXTERNAL)
    guest.code(0x900, DECREMENTER)
    vcpu = guest.vcpu(
        number,
        guest.code(0x1000, [mtdec(7), *hcall(Hcall.CEDE), 0x7C641B78, mftb(5), *user_call(), branch(-7)]),
    )
    if timer is None:
        vcpu.vcore.lpcr |= int(LPCR.LD)
    vcpu.state.gpr[7] = WEEKS if timer is None else timer
    return guest, vcpu


@given(
    timer=st.integers(1, 3 * SECOND),
    shift=st.integers(-(1 << 39), 1 << 39).map(lambda n: Offset((n << 24) % (1 << 64))),
)
def test_a_ceded_vcpu_wakes_at_its_expiry(timer: int, shift: Offset) -> None:
    host = Hypervisor(VirtualTime(), origin=0x1_0000_0000)
    _guest, vcpu = sleeper(host, timer & 0x7FFF_FFFF)
    vcpu.set_offset(shift)
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    _woken_at, dec = ended.args[:2]
    late = -(dec - (1 << 32)) - 1
    # It is taken at DEC = -1; the entry behind it, the handler's first instructions and the reading of DEC
    # follow.
    assert 0 <= late <= 12 * 256
    assert not host.check_sync()


def test_cede_opens_interrupts_and_succeeds() -> None:
    host = Hypervisor(VirtualTime())
    _guest, vcpu = sleeper(host)
    vcpu.prod()
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert ended.args[0] == Status.SUCCESS
    assert vcpu.state.MSR & MSR.EE


def test_a_prod_before_the_cede_is_not_lost_and_is_spent_by_it() -> None:
    host = Hypervisor(VirtualTime())
    _guest, vcpu = sleeper(host, timer=SECOND)
    vcpu.prod()
    first = vcpu.run()
    assert isinstance(first, Hypercall)
    assert first.args[1] < SECOND // 2
    second = vcpu.run()
    assert isinstance(second, Hypercall)
    assert second.args[0] >= SECOND // 2, "the second H_CEDE did not sleep"


def test_a_prod_that_comes_while_it_sleeps_wakes() -> None:
    source = VirtualTime()
    host = Hypervisor(source)
    _guest, vcpu = sleeper(host, timer=SECOND)
    source.call_at(1_000_000, vcpu.prod)
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert 1_000_000 <= ended.args[1] <= 1_000_000 + 8 * 256


@pytest.mark.parametrize("early", [True, False])
def test_an_external_interrupt_wakes_and_is_a_level(early: bool) -> None:
    source = VirtualTime()
    host = Hypervisor(source)
    _guest, vcpu = sleeper(host, timer=SECOND)
    source.call_at(1 if early else 1_000_000, lambda: vcpu.set_external(True))
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert ended.args[0] == 0x500
    assert source.ticks() < SECOND // 2
    # Nobody lowered it: it comes again as soon as interrupts are on, and no more once it is lowered.
    vcpu.state.CIA = 0x1000
    again = vcpu.run()
    assert isinstance(again, Hypercall)
    assert again.args[0] == 0x500
    vcpu.set_external(False)
    vcpu.state.CIA = 0x1000
    timer = vcpu.run()
    assert isinstance(timer, Hypercall)
    assert timer.args[0] > SECOND


@pytest.mark.parametrize("wake", ["external", "prod"])
def test_what_comes_while_it_sleeps_wakes_it_in_real_time(wake: str) -> None:
    source = RealTime()
    _guest, vcpu = sleeper(Hypervisor(source))
    begun = source.ticks()
    source.call_at(begun + SECOND // 50, lambda: vcpu.prod() if wake == "prod" else vcpu.set_external(True))
    with a_minute(vcpu):
        ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert ended.args[0] == (0 if wake == "prod" else 0x500)


@pytest.mark.parametrize("source", [VirtualTime(), RealTime()], ids=["virtual", "real"])
def test_a_kick_ends_a_sleep_and_the_hypercall_is_over(source: VirtualTime | RealTime) -> None:
    host = Hypervisor(source)
    _guest, vcpu = sleeper(host)
    begun = source.ticks()
    source.call_at(begun + SECOND // 50, vcpu.kick)
    with a_minute(vcpu):
        assert vcpu.run() == Kicked()
    assert source.ticks() - begun >= SECOND // 50
    assert vcpu.state.gpr[3] == 0
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)


@pytest.mark.parametrize("source", [VirtualTime(), RealTime()], ids=["virtual", "real"])
def test_a_kick_ends_a_loop_with_interrupts_off(source: VirtualTime | RealTime) -> None:
    host = Hypervisor(source)
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, [branch(0)]))
    source.call_at(source.ticks() + SECOND // 50, vcpu.kick)
    assert vcpu.run() == Kicked()
    assert not host.check_sync()


def test_a_kick_before_the_run_ends_it_at_once_and_is_spent() -> None:
    host = Hypervisor(VirtualTime())
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, [li(4, 7), *user_call()]))
    vcpu.kick()
    vcpu.kick()
    assert vcpu.run() == Kicked()
    assert vcpu.state.CIA == 0
    assert isinstance(vcpu.run(), Hypercall)


def set_offset(vcpu: VirtualCpu, offset: Offset) -> None:
    with vcpu.access():
        vcpu.set_offset(offset)


@pytest.mark.parametrize("source", [VirtualTime(), RealTime()], ids=["virtual", "real"])
def test_an_offset_that_jumps_over_the_expiry_wakes_the_sleeper(source: VirtualTime | RealTime) -> None:
    """A sibling moves the guest's time past the moment, weeks away, that a ceded vCPU waits for: it wakes
    then.
    """
    host = power8(source, cpu_model=LARGE_POWER8)
    guest, vcpu = sleeper(host, stride=2)
    sibling = guest.vcpu(1, 0)
    begun = source.ticks()

    def jump_once_it_sleeps() -> None:
        if vcpu.ceded:
            set_offset(sibling, Offset(2 * WEEKS))
        else:
            source.call_at(source.ticks() + SECOND // 50, jump_once_it_sleeps)

    jump_once_it_sleeps()
    with a_minute(vcpu):
        ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    # r4 is the timebase at the decrementer's interrupt.
    assert begun <= ended.args[0] - 2 * WEEKS <= source.ticks()


def test_an_offset_that_moves_the_expiry_away_lets_it_sleep_on() -> None:
    source = VirtualTime()
    host = power8(source)
    guest, vcpu = sleeper(host, timer=1 << 30, stride=2)
    sibling = guest.vcpu(1, 0)
    vcpu.set_offset(Offset(1 << 30))
    source.call_at(1_000_000, lambda: set_offset(sibling, Offset(0)))
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert source.ticks() >= 2 << 30


def test_a_ceded_thread_naps_while_its_sibling_runs_and_wakes_in_time() -> None:
    """Two threads of a virtual core: one cedes for a while, the other is not made to leave for that."""
    source = VirtualTime()
    host = power8(source)
    guest, napper = sleeper(host, timer=200_000, stride=2)
    worker = guest.vcpu(1, guest.code(0x3000, [*spin(20_000), mftb(4), *user_call()]))
    ends: dict[int, Exit] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        ends[vcpu.number] = ended
        return False

    run_together([napper, worker], one_run)
    woken = ends[0]
    assert isinstance(woken, Hypercall)
    late = -(woken.args[1] - (1 << 32)) - 1
    # The sibling's quantum ends when the nap is over.
    assert 0 <= late <= 40 * 256


def test_a_napping_thread_does_not_keep_its_sibling_from_leaving() -> None:
    source = VirtualTime()
    host = power8(source)
    guest, napper = sleeper(host, timer=2 * SECOND, stride=2)
    worker = guest.vcpu(1, guest.code(0x3000, [*spin(3000), mftb(4), *user_call()]))
    ended_at: dict[int, int] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        ended_at[vcpu.number] = source.ticks()
        return False

    run_together([napper, worker], one_run)
    assert ended_at[1] < 4000 * 256
    assert ended_at[0] > 2 * SECOND


def test_h_prod_wakes_another_vcpu() -> None:
    source = VirtualTime()
    host = Hypervisor(source, cores=2)
    guest, vcpu = sleeper(host, timer=SECOND)
    other = guest.vcpu(1, guest.code(0x4000, [*spin(500), li(4, 0), *hcall(Hcall.PROD), *user_call()]))
    ends: dict[int, Exit] = {}

    def one_run(who: VirtualCpu, ended: Exit) -> bool:
        ends[who.number] = ended
        return False

    run_together([vcpu, other], one_run)
    assert isinstance(ends[0], Hypercall)
    assert ends[0].args[0] == Status.SUCCESS
    assert source.ticks() < SECOND // 10


def test_a_hypercall_about_a_vcpu_that_is_not_there() -> None:
    host = Hypervisor(VirtualTime())
    guest = Guest(host)
    for number in (Hcall.PROD, Hcall.CONFER, Hcall.REGISTER_VPA):
        vcpu = guest.machine.vcpus.get(0) or guest.vcpu(0, 0)
        vcpu.state.CIA = guest.code(0x100, [li(4, 9), li(5, 9), *hcall(number), 0x7C641B78, *user_call()])
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        assert ended.args[0] - (1 << 64) == Status.PARAMETER


def test_two_vcpus_that_prod_each_other_in_real_time_never_sleep_for_ever() -> None:
    """Ping-pong by H_PROD and H_CEDE with no timer set: one lost wake would end it."""
    host = Hypervisor(RealTime(), cores=2)
    guest = Guest(host)
    rounds = 200
    for number in (0, 1):
        guest.code(
            0x1000 * (number + 1),
            [
                *(li(20, rounds), 0x7E8903A6),  # mtctr r20
                *(li(4, 1 - number), *hcall(Hcall.PROD)),
                *hcall(Hcall.CEDE),
                0x42000000 | ((-5 * 4) & 0xFFFC),  # bdnz to the prod
                *user_call(),
            ],
        )
        vcpu = guest.vcpu(number, 0x1000 * (number + 1))
        vcpu.decrementer_expiry = GuestTime(host.clock.now().value + (1 << 62))
    done: list[Exit] = []
    threads = [
        threading.Thread(target=lambda v=vcpu: done.append(v.run()), daemon=True)
        for vcpu in guest.machine.vcpus.values()
    ]
    for thread in threads:
        thread.start()
    # The last to cede may have been prodded for the last time before: see it home.
    deadline = time.monotonic() + 60
    while not done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done
    for vcpu in guest.machine.vcpus.values():
        vcpu.prod()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not host.check_sync()
