"""Cores and threads: which vCPUs run at once, and what they share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from little_guests import GRANULE, Guest, Log, mftb, run_together, spin, user_call

from chronovisor.hypervisor.exits import Exit, Hypercall
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.processor.cpu_model import POWER8, POWER9, CpuModel
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.trace import HostTimeRestored, OffsetApplied, SecondaryLetIn
from chronovisor.timebase.types import Offset


@pytest.mark.parametrize("model", [POWER8, POWER9])
def test_the_threads_of_a_core_run_at_once(model: CpuModel) -> None:
    """Four vCPUs on one core of four threads: if threads are independent each enters by itself, with an
    offset of its own; else one switches for all.
    """
    log = Log()
    host = Hypervisor(VirtualTime(), threads_per_core=4, cpu_model=model, observer=log)
    guest = Guest(host, stride=4)
    vcpus = []
    for number in range(4):
        code = guest.code(0x1000 * (number + 1), [mftb(4), *spin(3000), mftb(5), *user_call()])
        vcpus.append(guest.vcpu(number, code))
        vcpus[-1].set_offset(Offset((number + 1) * GRANULE))
    inside: list[int] = []

    def look() -> None:
        stays = [stay for stay in host.run_queue.stays if stay is not None]
        inside.extend(occupant.number for stay in stays for occupant in stay.inside)

    host.source.call_at(2500 * 256, look)
    ends: dict[int, tuple[int, ...]] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        assert isinstance(ended, Hypercall)
        ends[vcpu.number] = ended.args
        return False

    run_together(vcpus, one_run)
    assert inside == [0, 1, 2, 3]
    shared = not model.independent_threads
    # The last set is the virtual core's.
    offsets = [4 * GRANULE] * 4 if shared else [(n + 1) * GRANULE for n in range(4)]
    assert [ends[n][0] // GRANULE * GRANULE for n in range(4)] == offsets
    assert bool(log.of(SecondaryLetIn)) == shared
    first = log.of(OffsetApplied)[: 1 if shared else 4]
    assert [event.offset.value for event in first] == sorted(set(offsets))
    assert not host.check_sync()


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from([POWER8, POWER9]),
    cores=st.integers(1, 3),
    threads=st.sampled_from([1, 2, 4, 8]),
    vcpus=st.integers(1, 20),
    stride=st.sampled_from([1, 2, 4, 8]),
)
def test_any_number_of_vcpus_gets_on_with_any_number_of_threads(
    model: CpuModel, cores: int, threads: int, vcpus: int, stride: int
) -> None:
    """Whoever has no core waits for one, and gets it; nobody's offset is another's, and cores end in the
    host.
    """
    log, threads = Log(), min(threads, model.max_threads)
    host = Hypervisor(VirtualTime(), cores=cores, threads_per_core=threads, cpu_model=model, observer=log)
    guest = Guest(host, stride=min(stride, threads))
    made = []
    for number in range(vcpus):
        code = guest.code(0x1000 * (number + 1), [mftb(4), *spin(100), mftb(5), *user_call()])
        made.append(guest.vcpu(number, code))
        made[-1].set_offset(Offset((number + 1) * GRANULE))
    ends: dict[int, tuple[int, ...]] = {}

    def one_run(vcpu: VirtualCpu, ended: Exit) -> bool:
        assert isinstance(ended, Hypercall)
        ends[vcpu.number] = ended.args
        return False

    run_together(made, one_run)
    for vcpu in made:
        first, second = ends[vcpu.number][:2]
        assert second - first >= 100 * 256
        assert first // GRANULE * GRANULE == vcpu.vcore.offset.value
    assert len(log.of(OffsetApplied)) == len(log.of(HostTimeRestored))
    assert not host.check_sync()
    assert all(stay is None for stay in host.run_queue.stays)
