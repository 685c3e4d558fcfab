"""Whole guests in virtual time: native code and the concrete evaluator are in one state at one tick."""

from __future__ import annotations

import pytest

from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import Ticks


def _state(guest: Guest) -> list[object]:
    found: list[object] = [guest.console_text]
    for vcpu in guest.vcpus:
        with vcpu._vcpu.access():  # type: ignore[attr-defined]
            state = vcpu._vcpu.state  # type: ignore[attr-defined]
            found.append([state.executed, state.CIA, state.MSR, state.CR, state.XER, state.LR, state.CTR])
            found.append(list(state.gpr))
    found.append(hash(bytes(guest.memory.view)))
    return found


def _course(engine: str, image: str, smp: int, steps: int) -> list[object]:
    with Host(tb_origin=0x1234_5678_9ABC, clock=VirtualTime(), engine=engine) as host:
        guest = host.boot(image, "4M", smp=smp)
        seen: list[object] = []
        for step in range(steps):
            end = guest.run_for(Ticks(4_000_001 + 700_001 * step))
            seen.append((host.clock.now().value, _state(guest)))
            if end is not None:
                seen.append(end)
                break
        return seen


TIERS = ("regions", "threaded", "concrete")


@pytest.mark.parametrize("image", ["hello-le.elf", "hello-be.elf"])
def test_hello_is_the_same_to_the_tick(image: str) -> None:
    regions, threaded, concrete = (_course(engine, image, 1, 400) for engine in TIERS)
    assert regions == threaded == concrete
    assert regions[-1].ok  # type: ignore[attr-defined]


@pytest.mark.parametrize(("image", "smp"), [("demo-le.elf", 1), ("demo-be.elf", 2)])
def test_demo_is_the_same_to_the_tick(image: str, smp: int) -> None:
    regions, threaded, concrete = (_course(engine, image, smp, 12) for engine in TIERS)
    assert regions == threaded == concrete
    assert "watching" in str(regions[-1])
