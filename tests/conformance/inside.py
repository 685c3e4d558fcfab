"""Questions to the kernel's KVM, which the machine inside QEMU is told to ask."""

from __future__ import annotations

from typing import Any

from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.provider import open_system
from chronovisor.timebase.clock import RealTime
from conformance.rig import MSR, SAVED, STOP, rig
from conformance.transcript import Replay

_MSR_VEC, _MSR_FP = 1 << 25, 1 << 13


def transcript(name: str) -> dict[str, Any]:
    """Ask what a transcript asks. Return all answers, and those that differ."""
    system = open_system(HostOptions(source=RealTime()), "linux")
    try:
        replay = Replay(system, name, exact=False)
        replay.replay()
        return {"answers": replay.answers, "wrong": replay.wrong, "asked": replay.asked}
    finally:
        system.close()


def loaded_by_the_guest() -> dict[str, str]:
    """Return the registers of 16 bytes after the guest loads the bytes 0 to 15 into them."""
    system = open_system(HostOptions(source=RealTime()), "linux")
    try:
        with rig(system) as r:
            r.memory.write(SAVED, bytes(range(16)))
            # lvx v0,0,r9; lfd f1,0(r9)
            text = f"li r9, 0; ori r9, r9, {SAVED:#x}; .long 0x7C0048CE, 0xC8290000; {STOP}"
            r.enter(text, msr=MSR | _MSR_VEC | _MSR_FP)
            r.run()
            return {name: f"{r.get(name):#x}" for name in ("VR0", "FPR1", "VSR1")}
    finally:
        system.close()
