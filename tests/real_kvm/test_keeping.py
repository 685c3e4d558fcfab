"""A guest of the kernel's own KVM is paused, saved, and restored, through the interface alone."""

from __future__ import annotations

import pytest

from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import FREQUENCY, GRANULE, signed64
from real_kvm.machine import Machine
from real_kvm.reports import check_numbers

pytestmark = pytest.mark.real_kvm

AWAY = 0.5


@pytest.mark.parametrize("policy", ["freeze", "catch-up", "bounded:0.25"])
def test_a_guest_is_paused_and_saved(machine: Machine, policy: str) -> None:
    kept = machine.call("real_kvm.keeper:keep", policy, AWAY)
    for record in kept["records"]:
        away = signed64(record["guest_tb_after"] - record["guest_tb_before"])
        assert away >= 0
        assert record["elapsed_ticks"] >= AWAY * FREQUENCY
        assert record["counted_ticks"] == TimePolicy.parse(policy).counted(record["elapsed_ticks"])
        assert away - record["counted_ticks"] == record["error_ticks"]
        assert abs(record["rounding_ticks"]) <= GRANULE // 2
    assert kept["carried"]
    assert kept["due"]
    assert kept["end"] == "the guest powered off"
    told = dict(pair.split("=") for pair in kept["console"].split() if "=" in pair)
    assert told.pop("memory") == "intact"
    check_numbers({name: int(value) for name, value in told.items()}, kept["console"])
