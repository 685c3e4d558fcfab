"""Where the real kernel, or who uses its interface as it comes, breaks a promise: named for what happens."""

from __future__ import annotations

import pytest
from conformance.breaches import ask

from chronovisor.timebase.types import GRANULE
from real_kvm.machine import Machine

pytestmark = pytest.mark.real_kvm


def of_the_kernel(machine: Machine, name: str) -> dict[str, int]:
    answer: dict[str, int] = machine.call("conformance.breaches:ask", name, "linux")
    return answer


def test_a_guest_steps_back_where_user_space_keeps_the_offset_it_requested(machine: Machine) -> None:
    happened = of_the_kernel(machine, "requested_offset_kept_by_user_space")
    assert -GRANULE < happened["step"] < 0
    assert happened["step by the register"] >= 0


def test_rounding_up_at_each_set_adds_up_without_end(machine: Machine) -> None:
    happened = of_the_kernel(machine, "offsets_set_one_after_another")
    assert happened["got"] == happened["asked for"] * GRANULE


def test_a_deadline_drifts_forward_at_each_exit(machine: Machine) -> None:
    happened = of_the_kernel(machine, "expiry_after_many_exits")
    assert happened["moved"] > 0
    print(f"{happened['moved'] / happened['exits']:.0f} ticks an exit")
    assert ask("expiry_after_many_exits", "embedded")["moved"] == 0


def test_an_interrupt_from_before_a_deadline_was_moved_comes_early(machine: Machine) -> None:
    happened = of_the_kernel(machine, "deadline_moved_after_a_cede")
    assert happened["early by"] > 0
    assert ask("deadline_moved_after_a_cede", "embedded")["early by"] == 0
