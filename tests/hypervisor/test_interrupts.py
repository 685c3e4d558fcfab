"""Interrupts from outside, the registers that count, and the hypercalls that are answered here."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_guests import (
    RFID,
    SC1,
    Guest,
    branch,
    li,
    lis,
    mfdec,
    mftb,
    mtdec,
    power8,
    spin,
    user_call,
)

from chronovisor.hypervisor.exits import Crashed, FailedEntry, Hypercall, PlainHypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import NumberInUseError, VirtualMachine
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.processor.cpu_model import POWER8, POWER9
from chronovisor.timebase.clock import RealTime, SteppingTime, TickSource, VirtualTime
from chronovisor.timebase.offset import Switch, shift
from chronovisor.timebase.types import MASK64, GuestTime, Offset

EE = int(MSR.EE)


def interruptible(host: Hypervisor) -> tuple[Guest, VirtualCpu]:
    """Each vector ends the run with its own number in r4; the main program spins."""
    guest = Guest(host)
    for vector in (0x100, 0x200, 0x500, 0x700, 0x900, 0xC00):
        guest.code(vector, [li(4, vector), *user_call(), branch(0)])
    return guest, guest.vcpu(0, guest.code(0x2000, [branch(0)]))


def vector_of(vcpu: VirtualCpu) -> int:
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    return ended.args[0]


def test_the_order_of_interrupts_that_are_pending_together() -> None:
    _, vcpu = interruptible(Hypervisor(VirtualTime()))
    vcpu.pending.system_reset = True
    vcpu.pending.machine_check = 0
    vcpu.set_external(True)
    vcpu.decrementer_expiry = GuestTime(MASK64)
    taken = []
    for _ in range(4):
        vcpu.state.CIA = 0x2000
        vcpu.state.set_msr(vcpu.state.MSR | EE)
        taken.append(vector_of(vcpu))
        if taken[-1] == 0x500:
            vcpu.set_external(False)
    assert taken == [0x100, 0x200, 0x500, 0x900]


def test_what_msr_ee_masks_waits() -> None:
    source = VirtualTime()
    _, vcpu = interruptible(Hypervisor(source))
    vcpu.set_external(True)
    vcpu.state.CIA = 0x2000
    source.call_at(source.ticks() + 5_000_000, vcpu.kick)
    vcpu.run()
    assert vcpu.state.CIA == 0x2000
    assert vcpu.state.executed * 256 >= 5_000_000


@given(ticks=st.integers(1, (1 << 55) - 1))
def test_a_large_decrementer_keeps_all_its_bits_over_exits(ticks: int) -> None:
    """P7 with LPCR[LD]: DEC + G is the expiry, all of it."""
    source = VirtualTime()
    host = Hypervisor(source, origin=0xFFFF_FFFF_FFFF_0000)
    guest = Guest(host)
    vcpu = guest.vcpu(
        0, guest.code(0, [mtdec(7), mftb(4), mfdec(5), *user_call(), mftb(4), mfdec(5), *user_call()])
    )
    vcpu.vcore.set_lpcr(vcpu.vcore.lpcr | LPCR.LD, MASK64)
    vcpu.set_offset(Offset(77 << 24))
    vcpu.state.gpr[7] = ticks
    for wait in (12345, 0):
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        timebase, dec = ended.args[:2]
        assert (dec + timebase + 256 - vcpu.decrementer_expiry.value) & MASK64 == 0
        source.advance(wait)
    assert (vcpu.decrementer_expiry.value - timebase - ticks) & MASK64 != 0
    assert vcpu.vcore.lpcr & LPCR.LD


def test_a_decrementer_exception_is_a_level() -> None:
    """It comes again while DEC is negative, and is gone once the guest writes a positive value."""
    guest, vcpu = interruptible(Hypervisor(VirtualTime()))
    vcpu.decrementer_expiry = GuestTime(MASK64)
    for _ in range(2):
        vcpu.state.CIA = 0x2000
        vcpu.state.set_msr(vcpu.state.MSR | EE)
        assert vector_of(vcpu) == 0x900
    guest.code(0x900, [lis(11, 0x7FFF), mtdec(11), RFID])
    guest.machine.engine.forget_all()  # type: ignore[attr-defined]
    vcpu.state.CIA = guest.code(0x3000, [*spin(100), li(4, 1), *user_call()])
    vcpu.state.set_msr(vcpu.state.MSR | EE)
    assert vector_of(vcpu) == 1


def test_vtb_and_purr_count_in_the_guest_alone_and_no_offset_touches_them() -> None:
    source = VirtualTime()
    host = Hypervisor(source)
    guest = Guest(host)
    vtb, purr = 0x7CD1D2A6, 0x7CF54AA6  # mfvtb r6; mfpurr r7
    vcpu = guest.vcpu(0, guest.code(0, [vtb, purr, *spin(100), vtb, purr, *user_call(), branch(-9)]))
    vcpu.purr.value = 1 << 40
    vcpu.vcore.vtb.value = MASK64 - 100
    readings = []
    for offset in (0, 1 << 40, 5 << 24):
        vcpu.set_offset(Offset(offset))
        source.advance(1 << 33)
        vcpu.run()
        readings.append((vcpu.state.gpr[6], vcpu.state.gpr[7]))
    for (vtb_before, purr_before), (vtb_after, purr_after) in pairwise(readings):
        assert 100 * 256 < vtb_after - vtb_before < 120 * 256
        assert 100 * 256 < purr_after - purr_before < 120 * 256
    assert readings[0][0] < 120 * 256, "VTB did not wrap"
    assert vcpu.purr.value > 1 << 40


# Hypercalls


def call(vcpu: VirtualCpu, number: int, *arguments: int) -> Hypercall | int:
    """Make a hypercall: its status as a signed number, or what goes to user space."""
    vcpu.state.CIA = 0x4000
    vcpu.state.gpr[3] = number
    vcpu.state.gpr[4 : 4 + len(arguments)] = arguments
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    if ended.nr != 0x58:
        return ended
    status = vcpu.state.gpr[10]
    return status - (1 << 64) if status >> 63 else status


def caller(host: Hypervisor) -> VirtualCpu:
    guest = Guest(host)
    guest.code(0x4000, [SC1, 0x7C6A1B78, *user_call()])  # mr r10,r3
    return guest.vcpu(0, 0x4000)


def test_what_kvm_leaves_to_user_space_is_left_to_it() -> None:
    vcpu = caller(Hypervisor(VirtualTime()))
    for number in (
        Hcall.RTAS,
        Hcall.PUT_TERM_CHAR + 0x1000,
        Hcall.SET_MODE,
        Hcall.RANDOM,
        0xFFFF_FFFF_FFFF_FFFC,
    ):
        assert call(vcpu, number, 1, 2, 3) == PlainHypercall(number, (1, 2, 3, *vcpu.state.gpr[7:13]))


def test_h_random_repeats_itself_on_a_virtual_host_and_not_on_a_real_one() -> None:
    def draw(source: TickSource) -> list[int]:
        vcpu = caller(Hypervisor(source))
        vcpu.machine.hypercalls.enable(Hcall.RANDOM, True)
        drawn = []
        for _ in range(3):
            assert call(vcpu, Hcall.RANDOM) == Status.SUCCESS
            drawn.append(vcpu.state.gpr[4])
        return drawn

    assert draw(VirtualTime()) == draw(VirtualTime())
    assert len(set(draw(VirtualTime()))) == 3
    assert draw(RealTime()) != draw(RealTime())


def test_h_set_mode_takes_a_breakpoint_and_leaves_the_rest() -> None:
    vcpu = caller(Hypervisor(VirtualTime()))
    vcpu.machine.hypercalls.enable(Hcall.SET_MODE, True)
    assert call(vcpu, Hcall.SET_MODE, 0, 1, 0x1002, 0) == Status.SUCCESS
    assert vcpu.state.get("CIABR") == 0x1002
    assert call(vcpu, Hcall.SET_MODE, 0, 1, 0x1003, 0) == Status.P3
    assert call(vcpu, Hcall.SET_MODE, 0, 1, 0x1000, 1) == Status.P4
    assert call(vcpu, Hcall.SET_MODE, 1, 1, 0, 0) == Status.UNSUPPORTED_FLAG_START
    assert call(vcpu, Hcall.SET_MODE, 0, 2, 0, 0) == Status.P2
    assert isinstance(call(vcpu, Hcall.SET_MODE, 1, 4, 0, 0), Hypercall)


@pytest.mark.parametrize(("model", "vector", "srr0"), [(POWER9, 0x700, 0x2000), (POWER8, 0xC00, 0x2004)])
def test_sc_1_in_problem_state_goes_to_the_guests_kernel(model: object, vector: int, srr0: int) -> None:
    host = Hypervisor(VirtualTime()) if model is POWER9 else power8(VirtualTime())
    guest, vcpu = interruptible(host)
    guest.code(0x2000, [SC1])
    vcpu.state.set_msr(vcpu.state.MSR | MSR.PR)
    assert vector_of(vcpu) == vector
    assert vcpu.state.get("SRR0") == srr0


def test_h_confer_gives_way_and_succeeds() -> None:
    vcpu = caller(Hypervisor(VirtualTime()))
    assert call(vcpu, Hcall.CONFER, MASK64, 0) == Status.SUCCESS
    assert call(vcpu, Hcall.CONFER, 0, 0) == Status.SUCCESS
    assert call(vcpu, Hcall.CONFER, 7, 0) == Status.PARAMETER


# What cannot be


def test_a_guest_that_crashes_for_ever_is_told_by_what() -> None:
    host = Hypervisor(VirtualTime())
    guest = Guest(host)
    vcpu = guest.vcpu(0, 0x1_0000_0000)
    vcpu.vcore.lpcr &= ~int(LPCR.ILE)
    ended = vcpu.run()
    assert isinstance(ended, Crashed)
    assert "instruction storage" in ended.message
    assert "0x100000000" in ended.message
    assert not host.check_sync()


def test_a_machine_without_memory_is_not_entered() -> None:
    vcpu = VirtualMachine(Hypervisor(VirtualTime())).add_vcpu(0)
    ended = vcpu.run()
    assert isinstance(ended, FailedEntry)
    assert "memory" in ended.message


def test_memory_that_comes_after_the_vcpu_leaves_its_registers_alone() -> None:
    host = Hypervisor(VirtualTime())
    machine = VirtualMachine(host)
    vcpu = machine.add_vcpu(0)
    vcpu.state.gpr[7] = 77
    vcpu.state.set("SPRG3", 33)
    vcpu.state.CIA = 0x100
    guest = Guest(host)
    guest.code(0x100, [0x44000022])
    machine.give_memory(guest.memory)
    vcpu.state.set_msr(vcpu.state.MSR | MSR.LE)
    assert isinstance(vcpu.run(), Hypercall)
    assert (vcpu.state.gpr[7], vcpu.state.get("SPRG3"), vcpu.state.CIA) == (77, 33, 0x104)


def test_a_vcpu_number_is_taken_once() -> None:
    machine = VirtualMachine(power8(VirtualTime()), stride=2)
    first = machine.add_vcpu(2)
    with pytest.raises(NumberInUseError, match="2"):
        machine.add_vcpu(2)
    assert machine.add_vcpu(3).vcore is first.vcore
    assert machine.add_vcpu(4).vcore is not first.vcore


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"cores": 0}, "cores"),
        ({"threads_per_core": 3}, "threads per core"),
        ({"threads_per_core": 8}, "power9 has 1 or 2 or 4"),
        ({"ticks_per_instruction": 0}, "at least one"),
    ],
)
def test_a_host_that_cannot_be_is_refused(what: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hypervisor(VirtualTime(), **what)  # type: ignore[arg-type]


def test_an_entry_that_always_takes_too_long_fails_and_leaves_the_core_at_host_time() -> None:
    """Every attempt at the switch takes 2^24 ticks: the guest is not entered, and runs once the host is
    well.
    """
    source = SteppingTime()
    slow = [True]

    def slowly(tb, delta):  # type: ignore[no-untyped-def]
        if slow[0]:
            source.inject([1 << 24])
        return shift(tb, delta)

    host = power8(source)
    host.switch = Switch(slowly)
    guest = Guest(host, stride=2)
    vcpu = guest.vcpu(0, guest.code(0, [li(4, 1), *user_call()]))
    vcpu.set_offset(Offset(1 << 24))
    vcpu.decrementer_expiry = GuestTime(0x1234)
    ended = vcpu.run()
    assert isinstance(ended, FailedEntry)
    assert "32.768 ms" in ended.message
    assert vcpu.decrementer_expiry == GuestTime(0x1234)
    assert not host.check_sync()
    assert not any(host.run_queue.stays)
    slow[0] = False
    assert isinstance(vcpu.run(), Hypercall)
    assert not host.check_sync()
