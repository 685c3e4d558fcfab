"""A guest that translates addresses, and its interrupt controller, over a move and a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chronovisor.kvm.ids import ONE_REG_BY_NAME, MmuV3Flag
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.services import NO_TRANSLATION, Translation
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import Ticks

ICP_STATE = ONE_REG_BY_NAME["ICP_STATE"].id
RADIX = Translation(MmuV3Flag.RADIX | MmuV3Flag.GTSE, (1 << 63) | 0x8000C)
SHOWN = (0xFF << 56) | (2 << 32) | (4 << 24) | (4 << 16)
"""An inter-processor interrupt of priority 4 that is shown and not accepted."""


def _moved(guest: Guest, to: Host, path: Path) -> Guest:
    return move(guest, to, Link([Ticks(1000)]))[0]


def _restored(guest: Guest, to: Host, path: Path) -> Guest:
    snapshot(guest, path)
    return restore(path, to)[0]


@pytest.mark.parametrize("away", [_moved, _restored])
def test_translation_and_interrupts_go_along(
    away: Callable[[Guest, Host, Path], Guest], tmp_path: Path
) -> None:
    clock = VirtualTime()
    home, other = (Host(clock=clock, tb_origin=origin) for origin in (0, 5 << 50))
    guest = home.boot("hello-le.elf", "1M", smp=2)
    guest.platform.translate(RADIX)
    guest.vcpus[1].set_one_reg(ICP_STATE, SHOWN)
    arrived = away(guest, other, tmp_path / "snapshot")
    assert arrived.machine_state.translation == RADIX
    assert arrived.vcpus[1].get_one_reg(ICP_STATE) == SHOWN
    machine = arrived.vm._machine  # type: ignore[attr-defined]
    assert [vcpu.state.PATE1 for vcpu in machine.vcpus.values()] == [RADIX.process_table] * 2
    assert machine.vcpus[1].pending.external


def test_a_guest_that_never_translated_goes_as_before(tmp_path: Path) -> None:
    clock = VirtualTime()
    home, other = (Host(clock=clock, cpu="power8") for _ in range(2))
    guest = home.boot("hello-le.elf", "1M")
    assert _moved(guest, other, tmp_path).machine_state.translation == NO_TRANSLATION
