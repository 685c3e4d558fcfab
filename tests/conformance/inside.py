"""What is asked of the kernel's KVM, as the machine inside is told to ask it."""

from __future__ import annotations

from typing import Any

from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.provider import open_system
from chronovisor.timebase.clock import RealTime
from conformance.transcript import Replay


def transcript(name: str) -> dict[str, Any]:
    """Ask what a transcript asks: all answers, and those that differ."""
    system = open_system(HostOptions(source=RealTime()), "linux")
    try:
        replay = Replay(system, name, exact=False)
        replay.replay()
        return {"answers": replay.answers, "wrong": replay.wrong, "asked": replay.asked}
    finally:
        system.close()
