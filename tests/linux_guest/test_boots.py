"""Boots with moves at random moments repeat themselves, and what is wrong in them is seen."""

from __future__ import annotations

from typing import Any

import pytest

from chronovisor.kvm.registers import read_register, write_register
from chronovisor.machine.guest import Guest
from chronovisor.migration.restoration import Restored
from chronovisor.timebase.types import GRANULE, MASK64
from linux_guest.boots import Boot, boots

pytestmark = [pytest.mark.oracle, pytest.mark.soak]


def test_a_boot_follows_from_its_seed() -> None:
    first, again = Boot(7), Boot(7)
    first.run()
    again.run()
    assert first.lines == again.lines
    assert first.records == again.records
    assert first.stayed == again.stayed


def test_an_offset_that_is_off_by_a_granule_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Restored.release

    def released(self: Restored, *given: Any) -> Guest:
        guest = release(self, *given)
        for vcpu in guest.vcpus:
            write_register(vcpu, "TB_OFFSET", (read_register(vcpu, "TB_OFFSET") + 8 * GRANULE) & MASK64)
        return guest

    monkeypatch.setattr(Restored, "release", released)
    with pytest.raises(AssertionError, match="a clock steps"):
        boots(1, 1)
