"""The virtual processor area and the dispatch trace log: who may register what, and what the guest finds
in them.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from little_guests import Guest, Log, hcall, ld, li, mftb, spin, user_call

from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.exits import Hypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.vpa import FUNCTION_SHIFT, AreaError, Areas, Function
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.papr.vpa import (
    AREA_LENGTH,
    DTL_ENTRY_SIZE,
    STATUS_SHARED,
    VPA_DTL_ENABLE_MASK,
    VPA_DTL_INDEX,
    VPA_LENGTH,
    VPA_SIZE,
    VPA_STATUS,
    VPA_YIELD_COUNT,
    AreaField,
    DispatchLogEntry,
    DispatchReason,
    LogEvents,
    PreemptReason,
)
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.offset import guest_time
from chronovisor.timebase.trace import DispatchLogged
from chronovisor.timebase.types import GuestTime, Offset

VPA, LOG, SHADOW = 0x8000, 0x9000, 0xA000
LOG_SIZE = 3 * DTL_ENTRY_SIZE + 7
EVERYTHING = LogEvents.CEDE | LogEvents.PREEMPT | LogEvents.FAULT


def put(memory: GuestMemory, area: int, field: AreaField, value: int) -> None:
    memory.write(area + field.offset, field.pack(value))


def get(memory: GuestMemory, area: int, field: AreaField) -> int:
    return field.unpack(memory.read(area + field.offset, field.size))


def prepared(memory: GuestMemory) -> GuestMemory:
    put(memory, VPA, VPA_LENGTH, VPA_SIZE)
    put(memory, VPA, VPA_DTL_ENABLE_MASK, EVERYTHING)
    put(memory, LOG, AREA_LENGTH, LOG_SIZE)
    put(memory, SHADOW, AREA_LENGTH, 0x80)
    return memory


def entries(memory: GuestMemory, count: int) -> list[DispatchLogEntry]:
    return [
        DispatchLogEntry.unpack(memory.read(LOG + n * DTL_ENTRY_SIZE, DTL_ENTRY_SIZE)) for n in range(count)
    ]


# Registration


def refusals() -> list[tuple[str, int, int, int, Status]]:
    size = 1 << 20
    return [
        ("a function that is none", 0, VPA, VPA_SIZE, Status.PARAMETER),
        ("another", 4, VPA, VPA_SIZE, Status.PARAMETER),
        ("address 0", Function.REGISTER_VPA, 0, VPA_SIZE, Status.PARAMETER),
        ("not aligned", Function.REGISTER_VPA, VPA + 8, VPA_SIZE, Status.PARAMETER),
        ("too short", Function.REGISTER_VPA, VPA, VPA_SIZE - 8, Status.PARAMETER),
        ("across a page", Function.REGISTER_VPA, VPA + 4096 - 128, VPA_SIZE, Status.PARAMETER),
        ("outside memory", Function.REGISTER_VPA, size, VPA_SIZE, Status.PARAMETER),
        ("partly outside", Function.REGISTER_VPA, size - 512, VPA_SIZE, Status.PARAMETER),
        ("far outside", Function.REGISTER_VPA, 1 << 63, VPA_SIZE, Status.PARAMETER),
        ("a log without a VPA", Function.REGISTER_DTL, LOG, LOG_SIZE, Status.RESOURCE),
        ("a shadow without a VPA", Function.REGISTER_SLB_SHADOW, SHADOW, 0x80, Status.RESOURCE),
        ("a log too short", Function.REGISTER_DTL, LOG, DTL_ENTRY_SIZE - 1, Status.PARAMETER),
        ("a log that ends outside", Function.REGISTER_DTL, size - 128, 129, Status.PARAMETER),
    ]


@pytest.mark.parametrize(("why", "function", "address", "length", "status"), refusals())
def test_what_h_register_vpa_refuses(
    why: str, function: int, address: int, length: int, status: Status
) -> None:
    memory, areas = GuestMemory(1 << 20), Areas()
    if address + 8 <= memory.size:
        field = VPA_LENGTH if function == Function.REGISTER_VPA else AREA_LENGTH
        put(memory, address, field, length)
    assert areas.call(function, address, memory) is status
    assert not areas.vpa.registered
    assert not areas.dispatch_trace_log.registered
    assert not areas.slb_shadow.registered


def test_registering_an_area_copies_nothing_of_it() -> None:
    """A log may be as large as the guest's memory: its bounds are numbers."""

    class Counted(GuestMemory):
        most = 0

        def read(self, addr: int, size: int) -> bytes:
            Counted.most = max(Counted.most, size)
            return super().read(addr, size)

    memory, areas = Counted(64 << 20), Areas()
    put(prepared(memory), LOG, AREA_LENGTH, (64 << 20) - LOG)
    for function, address in ((Function.REGISTER_VPA, VPA), (Function.REGISTER_DTL, LOG)):
        assert areas.call(function, address, memory) is Status.SUCCESS
    areas.begin_dispatch(memory)
    assert areas.dispatch_trace_log.size_in_use > 60 << 20
    assert Counted.most <= 4096, f"{Counted.most} bytes were copied"
    put(memory, LOG, AREA_LENGTH, (64 << 20) - LOG + 1)
    assert areas.call(Function.REGISTER_DTL, LOG, memory) is Status.PARAMETER


def test_areas_are_registered_and_deregistered_in_their_order() -> None:
    memory, areas = prepared(GuestMemory(1 << 20)), Areas()
    for function in (Function.DEREGISTER_VPA, Function.DEREGISTER_DTL, Function.DEREGISTER_SLB_SHADOW):
        assert areas.call(function, 0, memory) is Status.SUCCESS, "there was nothing to deregister"
    for function, address in (
        (Function.REGISTER_VPA, VPA),
        (Function.REGISTER_DTL, LOG),
        (Function.REGISTER_SLB_SHADOW, SHADOW),
    ):
        assert areas.call(function, address, memory) is Status.SUCCESS
    assert areas.dispatch_trace_log.length == 3 * DTL_ENTRY_SIZE
    assert areas.call(Function.DEREGISTER_VPA, 0, memory) is Status.RESOURCE
    assert areas.call(Function.DEREGISTER_DTL, 0, memory) is Status.SUCCESS
    assert areas.call(Function.DEREGISTER_VPA, 0, memory) is Status.RESOURCE
    assert areas.call(Function.DEREGISTER_SLB_SHADOW, 0, memory) is Status.SUCCESS
    assert areas.call(Function.DEREGISTER_VPA, 0, memory) is Status.SUCCESS
    assert not areas.vpa.registered


def test_user_space_may_name_a_place_without_memory_and_nothing_is_written() -> None:
    memory, areas = GuestMemory(1 << 20), Areas()
    areas.set_vpa(0xFFFF_FFFF_FFFF_FF80)
    areas.begin_dispatch(memory)
    areas.end_dispatch(memory)
    assert not memory.dirty.take()
    with pytest.raises(AreaError, match="multiple of 128"):
        areas.set_vpa(0x40)


# What the guest finds


def register(function: Function, address: int) -> list[int]:
    """H_REGISTER_VPA for vCPU 0: r4 = function << 45."""
    shift = FUNCTION_SHIFT
    # li r4,function; sldi r4,r4,45; li r5,0; li r6,address
    sldi = 0x78000004 | (4 << 21) | (4 << 16) | ((shift & 31) << 11) | ((shift >> 5) << 1)
    sldi |= (((63 - shift) & 31) << 6) | (((63 - shift) >> 5) << 5)
    high = 0x3CC00000 | (address >> 16)  # lis r6
    low = 0x60C60000 | (address & 0xFFFF)  # ori r6,r6
    return [li(4, function), sldi, li(5, 0), high, low, *hcall(Hcall.REGISTER_VPA)]


def test_a_guest_reads_its_own_log_in_its_own_time() -> None:
    """P8: what the guest finds in the log is its own timebase, between its own readings."""
    log = Log()
    host = Hypervisor(VirtualTime(), origin=0x1111_0000_0000, observer=log)
    guest = Guest(host)
    memory = prepared(guest.memory)
    vcpu = guest.vcpu(
        0,
        guest.code(
            0x1000,
            [
                mftb(20),
                *register(Function.REGISTER_VPA, VPA),
                0x7C761B78,  # mr r22,r3
                *register(Function.REGISTER_DTL, LOG),
                0x7C7721 | 0,  # replaced below
                mftb(21),
                *user_call(),
                mftb(20),
                *spin(100),
                0x3D200000,  # lis r9,0
                0x61299000,  # ori r9,r9,LOG
                ld(8, 0x10, 9),
                *user_call(),
            ],
        ),
    )
    # mr r23,r3 where the placeholder is
    place = 0x1000 + 4 * (1 + 7 + 1 + 7)
    memory.store(place, 4, 0x7C771B78, little=True)
    vcpu.set_offset(Offset(0x2222 << 32))
    first = vcpu.run()
    assert isinstance(first, Hypercall)
    gpr = vcpu.state.gpr
    assert (gpr[22], gpr[23]) == (0, 0)
    assert get(memory, VPA, VPA_DTL_INDEX) == 1
    entry = entries(memory, 1)[0]
    assert gpr[20] < entry.timebase <= gpr[21]
    assert entry.dispatch_reason == DispatchReason.FIRMWARE_EVENT
    assert (entry.preempt_reason, entry.processor_id) == (PreemptReason.FIRMWARE_EVENT, 0)
    assert get(memory, VPA, VPA_STATUS) & STATUS_SHARED
    second = vcpu.run()
    assert isinstance(second, Hypercall)
    assert get(memory, VPA, VPA_DTL_INDEX) == 2
    assert gpr[8] == int.from_bytes(entry.timebase.to_bytes(8, "little"), "big")
    second_entry = entries(memory, 2)[1]
    assert gpr[21] < second_entry.timebase <= gpr[20]
    assert second_entry.srr0 == place + 4 + 4 + 8
    assert [event.timebase for event in log.of(DispatchLogged)] == [
        GuestTime(entry.timebase),
        GuestTime(second_entry.timebase),
    ]


def running_guest(host: Hypervisor) -> tuple[Guest, VirtualCpu]:
    guest = Guest(host)
    prepared(guest.memory)
    vcpu = guest.vcpu(0, guest.code(0x1000, [mftb(4), *user_call(), 0x4BFFFFF4]))
    vcpu.areas.set_vpa(VPA)
    vcpu.areas.set_dispatch_trace_log(LOG, LOG_SIZE)
    return guest, vcpu


@given(offset=st.integers(0, (1 << 40) - 1).map(lambda n: Offset(n << 24)), runs=st.integers(1, 11))
def test_one_entry_a_dispatch_and_the_ring_wraps(offset: Offset, runs: int) -> None:
    host = Hypervisor(VirtualTime(), origin=0x77)
    guest, vcpu = running_guest(host)
    vcpu.set_offset(offset)
    readings = []
    for _ in range(runs):
        vcpu.state.CIA = 0x1000
        ended = vcpu.run()
        assert isinstance(ended, Hypercall)
        readings.append(ended.args[0])
    memory = guest.memory
    assert get(memory, VPA, VPA_DTL_INDEX) == runs
    ring = entries(memory, 3)
    for n in range(max(0, runs - 3), runs):
        assert ring[n % 3].timebase == readings[n]
    assert memory.read(LOG + 3 * DTL_ENTRY_SIZE, 48) == bytes(48), "written behind the last whole entry"


def test_the_yield_count_is_even_while_the_vcpu_runs_and_odd_while_not() -> None:
    host = Hypervisor(VirtualTime())
    guest, vcpu = running_guest(host)
    counts: list[int] = []
    host.source.call_at(256, lambda: counts.append(get(guest.memory, VPA, VPA_YIELD_COUNT)))
    vcpu.run()
    counts.append(get(guest.memory, VPA, VPA_YIELD_COUNT))
    assert counts == [2, 3]
    vcpu.areas.set_dispatch_trace_log(0, 0)
    vcpu.areas.set_vpa(0)
    vcpu.run()
    assert get(guest.memory, VPA, VPA_YIELD_COUNT) == 3


def test_deregistering_takes_effect_before_the_guest_goes_on() -> None:
    """As under KVM: right behind the hypercall the count is odd, since the processor is dispatched without
    the area.
    """
    host = Hypervisor(VirtualTime())
    guest = Guest(host)
    prepared(guest.memory)
    load = [0x39200000 | 0, 0x61298000, 0x81490100]  # li r9,0; ori r9,r9,VPA; lwz r10,0x100(r9)
    vcpu = guest.vcpu(
        0,
        guest.code(
            0x1000,
            [
                *register(Function.REGISTER_VPA, VPA),
                *load,
                0x7D4B5378,  # mr r11,r10
                *register(Function.DEREGISTER_VPA, 0),
                *load,
                *user_call(),
            ],
        ),
    )
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    running, deregistered = vcpu.state.gpr[11], vcpu.state.gpr[10]
    assert int.from_bytes(running.to_bytes(4, "little"), "big") % 2 == 0
    assert int.from_bytes(deregistered.to_bytes(4, "little"), "big") % 2 == 1


def test_the_index_is_stored_behind_the_entry_that_it_announces() -> None:
    """The order of writes, seen by what the memory is asked to do."""
    writes: list[tuple[str, int]] = []

    class Watched(GuestMemory):
        __slots__ = ()

        def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
            if LOG <= addr < LOG + LOG_SIZE:
                writes.append(("entry", addr))
            super().write(addr, data)

        def store(self, addr: int, size: int, value: int, little: bool) -> None:
            if addr == VPA + VPA_DTL_INDEX.offset:
                writes.append(("index", value))
            super().store(addr, size, value, little)

    host = Hypervisor(VirtualTime())
    guest, vcpu = running_guest(host)
    guest.machine.give_memory(watched := Watched(1 << 20))
    prepared(watched)
    watched.write(0x1000, guest.memory.read(0x1000, 64))
    vcpu.run()
    vcpu.run()
    # The first is the test's own, the area's length.
    assert writes[1:] == [("entry", LOG), ("index", 1), ("entry", LOG + DTL_ENTRY_SIZE), ("index", 2)]


def test_a_log_in_host_time_is_seen() -> None:
    """The check of the test above would fail: an entry in host time lies outside the guest's own readings."""

    class InHostTime(DispatchLogWriter):
        def moment(self, stay: Stay) -> GuestTime:
            assert stay.applied is not None
            right = guest_time(stay.core.timebase, stay.applied)
            return GuestTime((right - stay.applied).value)

    guest, vcpu = running_guest(Hypervisor(VirtualTime()))
    vcpu.log = InHostTime(vcpu)
    vcpu.set_offset(Offset(1 << 32))
    ended = vcpu.run()
    assert isinstance(ended, Hypercall)
    assert entries(guest.memory, 1)[0].timebase != ended.args[0]
