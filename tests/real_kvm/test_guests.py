"""The guests that are shipped, unmodified, on the kernel's own KVM."""

from __future__ import annotations

import pytest

from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm


@pytest.mark.parametrize("image", ["hello-le.elf", "hello-be.elf"])
def test_a_guest_runs_to_its_end(machine: Machine, image: str) -> None:
    ended = machine.call("conformance.guests:run", "linux", image)
    assert ended["reason"] == "power off", ended
    assert "decrementer interrupt on time" in ended["console"]
