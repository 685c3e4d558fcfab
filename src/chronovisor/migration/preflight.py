"""Whether a host can take a guest at all: checked before anything is sent, stopped or created."""

from __future__ import annotations

from typing import Protocol

from chronovisor.kvm.ids import Cap
from chronovisor.kvm.interface import System
from chronovisor.machine.sizes import Topology
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.types import GuestTime, Offset, Ticks


class Needs(Protocol):
    """What a guest needs of its host, as an offer of a move or a snapshot's header says it."""

    @property
    def frequency(self) -> int:
        """Timebase ticks a second."""

    @property
    def pvr(self) -> int:
        """Its processor's version."""

    @property
    def dec_bits(self) -> int:
        """Width of its decrementer."""

    @property
    def topology(self) -> Topology:
        """Its vCPUs, and how many of them share a virtual core."""

    @property
    def guest_time(self) -> GuestTime:
        """Its time, at about this moment."""


def obstacle(
    guest: Needs, system: System, limit: Ticks = CLOCK_ERROR_LIMIT, here: str = "this host"
) -> str | None:
    """Return why the guest cannot be on this system, in a line; None if it can.

    If the system cannot shift its timebase, the guest's may be at most `limit` away from it. `here` is what
    messages call the host.
    """
    host, threads = system.host, guest.topology.threads
    if guest.frequency != host.frequency:
        return (
            f"the guest's timebase counts {guest.frequency} Hz, {here}'s {host.frequency} Hz: "
            "a guest's time can only go on at one rate"
        )
    if guest.dec_bits not in {32, host.dec_bits}:
        return (
            f"the guest's decrementer has {guest.dec_bits} bits and {here}'s {host.dec_bits}: "
            "its timers would not fit"
        )
    if guest.pvr != host.pvr:
        return f"the guest runs on a processor of version {guest.pvr:#x}, {here}'s is {host.pvr:#x}"
    if not threads & system.check_extension(Cap.PPC_SMT_POSSIBLE):
        return f"the guest's virtual cores have {threads} threads and {here}'s cores {host.threads_per_core}"
    lead = guest.guest_time - (system.clock.now() + Offset(0))
    if not host.has_tbu40 and abs(lead) > limit:
        return (
            f"the guest's timebase is {lead.seconds:+.3f} s from {here}'s, "
            f"and {here} has no TBU40 register to shift it with"
        )
    return None
