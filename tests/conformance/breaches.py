"""Behaviour of the kernel that breaks one of our promises, unless its user avoids it.

Each function tries it on a system and returns what happened, in ticks.
"""

from __future__ import annotations

from typing import Any, Final

from chronovisor.kvm.interface import System
from chronovisor.papr.hcalls import Hcall
from chronovisor.timebase.types import GRANULE, MASK64, signed64
from conformance.rig import MSR, MSR_EE, READ_TIME, STOP, Rig, rig

_SETS: Final = 10
_EXITS: Final = 200
_FAR: Final = 0x4000_0000


def _read(r: Rig) -> int:
    return r.run().args[0]


def requested_offset_kept_by_user_space(system: System) -> dict[str, Any]:
    """User space remembers the offset that it asked for instead of the one that was kept. It stops the guest
    and continues it by the remembered offset.
    """
    with rig(system) as r:
        r.enter(READ_TIME)
        requested = 1
        r.set("TB_OFFSET", requested)
        before = _read(r)
        stopped = r.host_time() + requested
        r.set("TB_OFFSET", stopped - r.host_time())
        by_memory = signed64(_read(r) - before)
        # The same again with the offset that the register says was kept.
        r.set("TB_OFFSET", requested)
        before = _read(r)
        stopped = r.host_time() + r.get("TB_OFFSET")
        r.set("TB_OFFSET", stopped - r.host_time())
        return {"step": by_memory, "step by the register": signed64(_read(r) - before)}


def offsets_set_one_after_another(system: System) -> dict[str, Any]:
    """Each set asks for one tick more: how many ticks the guest gets."""
    with rig(system) as r:
        for _ in range(_SETS):
            r.set("TB_OFFSET", r.get("TB_OFFSET") + 1)
        return {"asked for": _SETS, "got": r.get("TB_OFFSET")}


def expiry_after_many_exits(system: System) -> dict[str, Any]:
    """A guest does not write its decrementer: by how much its deadline moves over the exits."""
    with rig(system) as r:
        r.enter(READ_TIME)
        r.set("TB_OFFSET", 3 * GRANULE)
        expiry = (r.guest_time() + _FAR) & MASK64
        r.set("DEC_EXPIRY", expiry)
        for _ in range(_EXITS):
            r.run()
        return {"exits": _EXITS, "moved": signed64(r.get("DEC_EXPIRY") - expiry)}


def deadline_moved_after_a_cede(system: System) -> dict[str, Any]:
    """A guest cedes until its deadline, and its owner then moves it: how early the next interrupt comes."""
    with rig(system) as r:
        r.set("DEC_EXPIRY", r.guest_time() + _FAR)
        r.enter(f"mtdec r30; li r3, {int(Hcall.CEDE):#x}; sc 1; b .", msr=MSR | MSR_EE, r30=200_000)
        r.run()
        r.set("DEC_EXPIRY", r.guest_time() + _FAR)
        r.enter(f"li r4, 0; {STOP}", msr=MSR | MSR_EE)
        interrupted_at = r.run().args[0]
        early = signed64(r.get("DEC_EXPIRY") - interrupted_at)
        # It is late if the machine has held the vCPU up.
        return {"early by": max(0, early) if interrupted_at else 0}


def ask(name: str, provider: str) -> dict[str, Any]:
    """Try one of these on a provider."""
    from chronovisor.kvm.interface import HostOptions
    from chronovisor.kvm.provider import open_system
    from chronovisor.timebase.clock import RealTime

    system = open_system(HostOptions(source=RealTime()), provider)
    try:
        answer: dict[str, Any] = globals()[name](system)
        return answer
    finally:
        system.close()
