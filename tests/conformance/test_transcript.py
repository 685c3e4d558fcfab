"""The embedded provider answers as a real kernel did: request by request, on each processor."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from chronovisor.engine.choice import engine_named
from chronovisor.hypervisor.guest_model import GUEST_MODELS, GuestModel
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.isa.bits import LPCR
from chronovisor.kvm.embedded.system import EmbeddedSystem
from chronovisor.processor.cpu_model import POWER8, POWER9, CpuModel
from chronovisor.timebase.clock import VirtualTime
from conformance.transcript import NO_REQUESTS, NOT_BUILT, Replay

NINE = GUEST_MODELS[POWER9.name]

MODELS: dict[str, tuple[CpuModel, GuestModel, int]] = {
    # The nested kernel sees an LPCR without the wake-up bits; the emulated bare machine has no AIL mode 3.
    "kvm_transcript": (POWER9, replace(NINE, lpcr=0x0040_0000_0054_0413), 1),
    "kvm_transcript_powernv9": (
        POWER9,
        replace(NINE, lpcr_writable=NINE.lpcr_writable & ~int(LPCR.AIL)),
        1,
    ),
    "kvm_transcript_powernv8_smt8": (POWER8, GUEST_MODELS[POWER8.name], 8),
}


def replayed(name: str, engine: str = "concrete") -> Replay:
    model, guest_model, threads = MODELS[name]
    system = EmbeddedSystem(
        Hypervisor(
            VirtualTime(),
            0x67C8DF9C,
            threads_per_core=threads,
            cpu_model=model,
            engine=engine_named(engine),
            guest_model=guest_model,
        )
    )
    replay = Replay(system, name, NOT_BUILT, in_step=lambda: not system.hypervisor.check_sync())
    replay.replay()
    return replay


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_real_kernel(name: str) -> None:
    check(replayed(name))


def test_the_native_engine_gives_the_same_answers() -> None:
    pytest.importorskip("llvmlite")
    check(replayed("kvm_transcript_powernv9", "regions"))


def check(replay: Replay) -> None:
    assert not replay.wrong
    assert replay.asked == Counter(r["op"] for r in replay.records if r["op"] not in NO_REQUESTS)
