"""DEC over whatever makes a guest leave and enter again: it reads on, and interrupts at its moment."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from little_guests import GRANULE, Guest, branch, mfdec, mftb, mtdec, user_call

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.exits import Hypercall, Kicked
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.isa.bits import LPCR
from chronovisor.processor.cpu_model import POWER8, POWER9, CpuModel
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import MASK64, GuestTime, Offset, Ticks

INSTRUCTION = 256
ORIGIN = 0x1234_5678_9ABC
READ_DEC, READ_AFTER = 0x1004, 0x1008
"""The addresses at which the guest reads DEC, and G once more."""
DAMAGES = st.integers(-(1 << 63), (1 << 63) - 1)
OFFSETS = st.integers(0, (1 << 40) - 1).map(lambda n: Offset(n << 24))
TICKS = st.integers(0, 200 * INSTRUCTION)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.just(0)),
        st.tuples(st.just("stop"), st.integers(0, 1 << 33)),
        st.tuples(st.just("offset"), OFFSETS),
        st.tuples(st.just("kick"), TICKS),
        st.tuples(st.just("trigger"), TICKS),
        st.tuples(st.just("fail"), st.tuples(TICKS, DAMAGES)),
    ),
    min_size=3,
    max_size=12,
)


def guest_on(
    model: CpuModel, large: bool, code: list[int], engine: str = "concrete"
) -> tuple[VirtualTime, VirtualCpu]:
    source = VirtualTime()
    guest = Guest(Hypervisor(source, origin=ORIGIN, cpu_model=model, engine=engine_named(engine)))
    guest.code(0x900, [mftb(4), mfdec(5), *user_call()])
    vcpu = guest.vcpu(0, guest.code(0x1000, code))
    if large:
        vcpu.vcore.set_lpcr(int(LPCR.LD), int(LPCR.LD))
    return source, vcpu


def happen(source: VirtualTime, vcpu: VirtualCpu, what: str, how: object) -> None:
    """Have something come from outside, now or within the next run."""
    maintenance = vcpu.host.maintenance
    match what, how:
        case "stop", int(ticks):
            source.advance(ticks)
        case "offset", Offset() as offset:
            with vcpu.access():
                vcpu.set_offset(offset)
        case "kick", int(ticks):
            source.call_at(source.ticks() + ticks, vcpu.kick)
        case "trigger", int(ticks):
            source.call_at(source.ticks() + ticks, partial(maintenance.trigger_debug, 0))
        case "fail", (int(ticks), int(damage)):
            source.call_at(source.ticks() + ticks, partial(maintenance.fail_timebase, 0, Ticks(damage)))


@settings(max_examples=120, deadline=None)
@given(
    model=st.sampled_from([(POWER8, False), (POWER9, False), (POWER9, True)]),
    # An expiry of 0 is one that was never set.
    expiry=st.integers(1, MASK64),
    steps=STEPS,
)
@example(
    # The owner sets the offset back between the guest's two readings.
    model=(POWER8, False),
    expiry=1,
    steps=[("kick", 6657), ("run", 0), ("trigger", 0), ("run", 0), ("offset", Offset(0))],
)
def test_dec_and_timebase_have_one_sum(
    model: tuple[CpuModel, bool], expiry: int, steps: list[tuple[str, object]]
) -> None:
    """P7: DEC + G is the expiry, before and after any exit, stop, failure, or setting of the offset."""
    source, vcpu = guest_on(*model, code=[mftb(4), mfdec(5), mftb(6), *user_call(), branch(-5)])
    vcpu.set_offset(Offset(GRANULE))
    vcpu.decrementer_expiry = GuestTime(expiry)
    width = (1 << 56) - 1 if model[1] else 0xFFFF_FFFF
    moved = {READ_DEC: 0, READ_AFTER: 0}
    for what, how in [*steps, ("run", 0)]:
        offset = vcpu.vcore.offset
        happen(source, vcpu, what, how)
        if vcpu.state.CIA in moved:
            # The guest is between two of its readings: later ones are further by what the owner set.
            moved[vcpu.state.CIA] += (vcpu.vcore.offset - offset).value
        if what != "run":
            continue
        ended = vcpu.run()
        if isinstance(ended, Kicked):
            continue
        assert isinstance(ended, Hypercall)
        before, dec, after = ended.args[:3]
        # Both as they would be with the offset under which DEC was read.
        before, after = before + moved[READ_DEC], after - moved[READ_AFTER]
        moved = dict.fromkeys(moved, 0)
        # An exit may have come between two of them.
        assert (expiry - dec - before) & width <= (after - before) & MASK64
        assert (vcpu.decrementer_expiry.value - expiry) & width == 0
        assert not vcpu.host.check_sync()


@settings(max_examples=80, deadline=None)
@given(
    model=st.sampled_from([POWER8, POWER9]),
    timer=st.integers(0, 400 * INSTRUCTION),
    disturbances=st.lists(
        st.one_of(
            st.tuples(st.just("kick"), TICKS),
            st.tuples(st.just("trigger"), TICKS),
            st.tuples(st.just("fail"), st.tuples(TICKS, DAMAGES)),
        ),
        max_size=8,
    ),
)
def test_its_interrupt_comes_at_its_moment(
    model: CpuModel, timer: int, disturbances: list[tuple[str, object]]
) -> None:
    """Never before DEC is -1, and then as soon as the guest executes anything."""
    source, vcpu = guest_on(model, False, [branch(0)])
    vcpu.state.set_msr(vcpu.state.MSR | (1 << 15))
    vcpu.set_offset(Offset(7 * GRANULE))
    vcpu.decrementer_expiry = (vcpu.host.clock.now() + vcpu.vcore.offset) + Ticks(timer)
    for what, how in disturbances:
        happen(source, vcpu, what, how)
    ended = vcpu.run()
    while isinstance(ended, Kicked):
        ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    late = -(ended.args[1] - (1 << 32)) - 1
    # Its own instruction, the handler's two, and entries that came in between, of four accesses each way.
    assert 0 <= late <= (6 + 8 * (1 + len(disturbances))) * INSTRUCTION


def signed(value: int, width: int) -> int:
    value &= (1 << width) - 1
    return value - (value >> (width - 1) << width)


@pytest.mark.parametrize("engine", ["concrete", "regions"])
@pytest.mark.parametrize(
    ("model", "width"), [((POWER8, False), 32), ((POWER9, False), 32), ((POWER9, True), 56)], ids=str
)
def test_dec_is_cut_to_its_width_when_it_is_written(
    engine: str, model: tuple[CpuModel, bool], width: int
) -> None:
    """The deadline that a write leaves is that of the register's own bits, extended with their sign."""
    if engine == "regions":
        pytest.importorskip("llvmlite")
    code = [mftb(4), mtdec(7), *user_call(), branch(-4)]
    _, vcpu = guest_on(*model, code, engine)
    values = [1, 100, MASK64, (1 << 31) - 1, 1 << 31, (1 << 32) - 5, 0x1_0000_0007, 1 << 63]
    values += [(1 << 55) - 1, 1 << 55, (1 << 56) - 3, (1 << 56) + 9, (1 << 57) + 9, (7 << 56) + (1 << 54)]
    for value in values:
        vcpu.state.gpr[7] = value
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        written = ((ended.args[0] - ORIGIN) & MASK64) + INSTRUCTION
        left = vcpu.host.cores[0].threads[0].decrementer.deadline - written
        assert left == signed(value, width), f"DEC of {width} bits: {value:#x} was written"


def test_how_long_ago_a_decrementer_was_due() -> None:
    source = VirtualTime()
    vcpu = Guest(Hypervisor(source, origin=1 << 60)).vcpu(0, 0)
    vcpu.decrementer_expiry = GuestTime(vcpu.host.clock.now().value + 1000)
    overdue = []
    for _ in range(3):
        overdue.append(vcpu.timer.overdue())
        source.advance(801)
    # Its exception comes one tick after DEC is 0.
    assert overdue == [0, 0, 601]
