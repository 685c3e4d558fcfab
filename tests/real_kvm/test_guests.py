"""The guests that are shipped, unmodified, on the kernel's own KVM."""

from __future__ import annotations

from typing import Any

import pytest

from real_kvm.machine import Machine
from real_kvm.reports import check_report

pytestmark = pytest.mark.real_kvm


@pytest.mark.parametrize("image", ["hello-le.elf", "hello-be.elf"])
def test_a_guest_runs_to_its_end(machine: Machine, image: str) -> None:
    ended = machine.call("conformance.guests:run", "linux", image)
    assert ended["reason"] == "power off", ended
    assert "decrementer interrupt on time" in ended["console"]


@pytest.mark.parametrize(("image", "smp"), [("demo-le.elf", 1), ("demo-be.elf", 2)])
def test_a_guest_that_watches_its_time_finds_nothing_wrong(machine: Machine, image: str, smp: int) -> None:
    report: dict[str, Any] = machine.call("conformance.guests:watch", "linux", image, smp)
    check_report(report)
    assert report["numbers"]["entries"] > 0
    assert (report["numbers"]["readings_others"] > 0) == (smp > 1)
