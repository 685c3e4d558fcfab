"""Stolen time, as it is counted in the guest's memory."""

from __future__ import annotations

import pytest
from test_reverse import RACE_ELF, STEP

from chronovisor.kvm.registers import write_register
from chronovisor.machine import Host
from chronovisor.machine.stolen_time import stolen_time
from chronovisor.timebase.types import Ticks


@pytest.mark.parametrize(("cores", "steals"), [(1, True), (2, False)])
def test_two_vcpus_on_too_few_cores_wait_for_each_other(cores: int, steals: bool) -> None:
    with Host(clock="virtual", cores=cores) as host:
        guest = host.boot(RACE_ELF, smp=2)
        assert stolen_time(guest) is None
        for vcpu in guest.vcpus:
            write_register(vcpu, "VPA_ADDR", 0x30000 + 0x1000 * vcpu.id)
        before = host.timebase
        guest.run_for(Ticks(STEP * 30_000))
        stolen = stolen_time(guest)
        assert stolen is not None
        assert (stolen > Ticks(0)) == steals
        assert stolen < host.timebase - before
