"""Turns in virtual time are repeatable; in real time nothing that races breaks a promise."""

from __future__ import annotations

import random
import threading
import time

import pytest
from little_guests import (
    RFID,
    SECOND,
    Guest,
    Log,
    addi,
    branch,
    hcall,
    li,
    lis,
    mftb,
    mtdec,
    power8,
    run_together,
    spin,
    std,
    user_call,
)

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.hypervisor.exits import Exit, Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.run_queue import TIME_SLICE
from chronovisor.hypervisor.scheduler import QUANTUM, Parallel, scheduler_for
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.clock import RealTime, VirtualTime
from chronovisor.timebase.trace import HostTimeRestored, OffsetApplied
from chronovisor.timebase.types import Offset, SourceTime


def busy_guest(host: Hypervisor, name: int, vcpus: int, stride: int) -> Guest:
    """Each vCPU reads the timebase over and over, stores it, naps by H_CEDE with a timer, and ends now and
    then.
    """
    guest = Guest(host, stride)
    guest.code(0x900, [lis(11, 0x7FFF), mtdec(11), RFID])
    for number in range(vcpus):
        guest.code(
            0x2000 + 0x200 * number,
            [
                lis(9, 1),
                addi(9, 9, 0x1000 * number),
                *(mftb(4), std(4, 0, 9), addi(9, 9, 8)),
                *spin(300 + 170 * number),
                *(mftb(4), std(4, 0, 9), addi(9, 9, 8)),
                *(li(7, 0x6000), mtdec(7), *hcall(Hcall.CEDE)),
                *user_call(),
                branch(-15),
            ],
        )
        vcpu = guest.vcpu(number, 0x2000 + 0x200 * number)
        vcpu.set_offset(Offset((name * 1000 + number // stride) << 24))
    return guest


def scenario(seed: int) -> tuple[list[str], list[bytes], int]:
    """Two hosts on one clock, eight vCPUs, offsets set and vCPUs kicked at random: the trace, memories and
    clock.
    """
    choose = random.Random(seed)
    source = VirtualTime()
    log = Log()
    hosts = [power8(source, origin=choose.getrandbits(64), observer=log, cores=1) for _ in range(2)]
    guests = [busy_guest(host, n, vcpus=4, stride=2) for n, host in enumerate(hosts)]
    vcpus = [vcpu for guest in guests for vcpu in guest.machine.vcpus.values()]
    for _ in range(12):
        who = choose.choice(vcpus)
        source.call_at(choose.randrange(3_000_000), who.kick)
    runs: dict[VirtualCpu, int] = dict.fromkeys(vcpus, 0)

    def turns(vcpu: VirtualCpu, ended: Exit) -> bool:
        runs[vcpu] += 1
        if isinstance(ended, Hypercall):
            vcpu.state.CIA = 0x2000 + 0x200 * vcpu.number + 8
            if runs[vcpu] % 3 == 0:
                vcpu.vcore.set_offset(Offset((runs[vcpu] * 77 + vcpu.number) << 24))
        return runs[vcpu] < 8

    run_together(vcpus, turns)
    for host in hosts:
        assert not host.check_sync()
    return (
        [repr(event) for event in log.events],
        [g.memory.read(0, g.memory.size) for g in guests],
        source.ticks(),
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_same_scenario_takes_the_same_course_tick_for_tick(seed: int) -> None:
    first, second = scenario(seed), scenario(seed)
    assert first[0] == second[0]
    assert first[1:] == second[1:]
    assert len(first[0]) > 200
    assert scenario(seed + 1000)[0] != first[0], "the trace does not tell scenarios apart"


def test_hosts_on_one_virtual_clock_take_turns_together() -> None:
    source = VirtualTime()
    assert scheduler_for(source) is scheduler_for(source)
    assert scheduler_for(source) is not scheduler_for(VirtualTime())
    assert scheduler_for(RealTime()) is not scheduler_for(RealTime())


def test_the_clock_stands_while_a_bound_vcpu_is_in_user_space() -> None:
    """An exit's handling takes no virtual time, and the others wait for it."""
    source = VirtualTime()
    host = Hypervisor(source, cores=2)
    guest = Guest(host)
    caller = guest.vcpu(0, guest.code(0x1000, user_call()))
    guest.vcpu(1, guest.code(0x2000, [*spin(500), *user_call()]))
    seen: list[tuple[int, int]] = []

    def turns(vcpu: VirtualCpu, ended: Exit) -> bool:
        if vcpu is caller:
            before = source.ticks(), guest.machine.vcpus[1].state.executed
            time.sleep(0.05)
            seen.append((source.ticks() - before[0], guest.machine.vcpus[1].state.executed - before[1]))
        return False

    run_together(list(guest.machine.vcpus.values()), turns)
    assert seen == [(0, 0)]


def test_turns_end_however_much_an_engine_could_run_at_once() -> None:
    class Tireless(ConcreteEngine):
        budget = 1 << 20

    host = Hypervisor(VirtualTime(), cores=2, engine=Tireless)
    guest = Guest(host)
    vcpus = [guest.vcpu(number, guest.code(0x1000, [*spin(30_000), *user_call()])) for number in (0, 1)]
    behind: list[int] = []

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        behind.append(vcpu.state.executed - vcpus[1 - vcpu.number].state.executed)
        return False

    run_together(vcpus, one_run)
    assert behind[0] <= QUANTUM


def test_virtual_cores_share_a_core_by_time_slices() -> None:
    """Four virtual cores on one core: each gets on, and none sees time go back."""
    log = Log()
    host = power8(VirtualTime(), threads=1, observer=log)
    guest = Guest(host)
    for number in range(4):
        code = guest.code(
            0x1000 * (number + 1),
            [mftb(4), *spin(30_000), mftb(5), *user_call()],
        )
        guest.vcpu(number, code).set_offset(Offset(number << 30))
    ends: dict[int, Exit] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        ends[vcpu.number] = ended
        return False

    run_together(list(guest.machine.vcpus.values()), one_run)
    for ended in ends.values():
        assert isinstance(ended, Hypercall)
        assert ended.args[1] - ended.args[0] > 30_000 * 256
    assert len(log.of(OffsetApplied)) >= 8, "nobody was made to give the core up"
    assert len(log.of(OffsetApplied)) == len(log.of(HostTimeRestored))


def test_a_vcpu_that_waits_for_a_core_can_be_kicked() -> None:
    source = VirtualTime()
    host = power8(source, threads=1)
    guest = Guest(host)
    hog = guest.vcpu(0, guest.code(0x1000, [branch(0)]))
    waiter = guest.vcpu(1, guest.code(0x2000, [branch(0)]))
    source.call_at(SECOND // 1000, waiter.kick)
    source.call_at(SECOND // 500, hog.kick)
    ends: dict[int, Exit] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        ends[vcpu.number] = ended
        return False

    run_together([hog, waiter], one_run)
    assert ends == {0: Kicked(), 1: Kicked()}
    assert waiter.state.executed == 0
    assert not host.run_queue.waiting


def test_registers_wait_until_the_vcpu_has_left_its_run() -> None:
    host = Hypervisor(RealTime())
    guest = Guest(host)
    vcpu = guest.vcpu(0, guest.code(0, [addi(4, 4, 1), branch(-1)]))
    ends: list[Exit] = []
    runner = threading.Thread(target=lambda: ends.append(vcpu.run()), daemon=True)
    runner.start()
    while not vcpu.state.executed:
        time.sleep(0.001)
    threading.Timer(0.05, vcpu.kick).start()
    with vcpu.access():
        assert ends == [Kicked()] or not vcpu._access.running
        vcpu.set_offset(Offset(1 << 24))
    runner.join(60)
    assert ends == [Kicked()]


def test_one_that_often_goes_to_user_space_has_its_share_of_a_core() -> None:
    """Three others never leave by themselves; whoever came back last would wait for a time slice of each."""
    source = VirtualTime()
    guest = Guest(Hypervisor(source))
    calls = 100
    talker = guest.vcpu(0, guest.code(0x1000, [*spin(50), *user_call(), branch(-5)]))
    others = [guest.vcpu(number, guest.code(0x2000, [branch(0)])) for number in (1, 2, 3)]
    made = 0

    def turns(vcpu: VirtualCpu, ended: Exit) -> bool:
        nonlocal made
        if isinstance(ended, Kicked):
            return False
        made += 1
        if made == calls:
            for each in (talker, *others):
                each.kick()
        # While user space does what it was called for, another takes the core, and begins.
        for _ in range(2):
            vcpu.host.scheduler.give_way()
        return True

    run_together([talker, *others], turns)
    # At first a time slice of each other, then no more than two turns of one of them at each of its calls.
    turn = QUANTUM * guest.host.ticks_per_instruction
    assert source.ticks() < 4 * TIME_SLICE.value + 2 * calls * turn
    assert made == calls


def test_one_that_rested_is_not_ahead_of_the_others_for_as_long() -> None:
    source = VirtualTime()
    host = Hypervisor(source)
    guest = Guest(host)
    early, late = (guest.vcpu(number, guest.code(0x1000, [branch(0)])) for number in (0, 1))

    def both_for(ticks: int, *vcpus: VirtualCpu) -> list[int]:
        before = [vcpu.vcore.run_time.ticks() for vcpu in vcpus]
        source.call_at(source.ticks() + ticks, lambda: [vcpu.kick() for vcpu in vcpus] and None)
        run_together(list(vcpus))
        return [vcpu.vcore.run_time.ticks() - had for vcpu, had in zip(vcpus, before, strict=True)]

    both_for(50 * TIME_SLICE.value, early)
    had, others = both_for(20 * TIME_SLICE.value, early, late)
    assert abs(others - had) <= 4 * TIME_SLICE.value


def test_a_wait_sleeps_up_to_shortly_before_its_deadline_and_then_looks_at_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine wakes a thread some microseconds late; the last ones before the deadline are not slept."""

    class Clock(RealTime):
        """A clock that goes on as it is looked at, and as the thread sleeps."""

        now, looks = 0, 0

        def ticks(self) -> SourceTime:
            self.now += 512
            self.looks += 1
            return SourceTime(self.now)

    clock = Clock()
    scheduler = Parallel(clock)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += round(seconds * clock.frequency)

    monkeypatch.setattr(scheduler._condition, "wait", sleep)
    deadline = SourceTime(SECOND)
    with scheduler.monitor:
        scheduler.wait(lambda: False, lambda: deadline)
    assert len(slept) == 1
    assert 0.9999 < slept[0] < 1 - 25e-6
    assert clock.now >= deadline
    assert clock.looks > 20
