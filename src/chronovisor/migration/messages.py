"""What the two ends of a move say to each other, in the order in which they say it.

    source                      destination
    Offer            ->                          is it possible at all? (the guest runs on)
                     <-  Accepted | Refused
    Round            ->                          memory, while the guest runs on; as often as need be
                     <-  Received | Aborted
    Past             ->                          what a recorded guest was before; in virtual time alone
                     <-  Received | Aborted
    State            ->                          all but the time (the guest is stopped)
                     <-  Ready | Aborted
    Measure          ->                          only to have READY again, from a side that is at rest
                     <-  Ready | Aborted
    Commit           ->                          from here on the destination decides
                     <-  Acknowledged | Aborted
                     <-  Running                 unasked, when it was let go; nothing depends on it
    Query            ->                          only if that answer was lost
                     <-  Acknowledged | Aborted | Unknown

Messages are types of their own, so that a wire can carry them and a later version can read them. Every
duration is in ticks of the clock of the side that sends it. No message carries one side's clock for the other
to trust.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from chronovisor.kvm.structures import Sregs
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.sizes import Topology
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.migration.recorded_past import PastPart
from chronovisor.timebase.handover import IdealInterval
from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GuestTime, Ticks


@dataclass(frozen=True, slots=True)
class Offer:
    """What the destination must be able to do; sent while the guest still runs."""

    move: str
    """The move's id, by which its outcome can be asked for."""
    clock: str
    """Which clock the source's host counts with: `clock_name`."""
    frequency: int
    """Timebase ticks a second."""
    origin: int
    """The source's timebase when its clock stood at 0: only for the record."""
    pvr: int
    dec_bits: int
    """Width of the guest's decrementer."""
    topology: Topology
    """Its vCPUs, and how many of them share a virtual core."""
    memory_size: int
    """In bytes."""
    name: str
    """What the guest is called."""
    guest_time: GuestTime
    """The guest's time when this was sent: what a destination that cannot shift its timebase goes by."""
    limit: Ticks
    """How far the guest's time may be from its ideal after the move."""
    policy: TimePolicy = CATCH_UP
    """How much of the time away counts for the guest."""
    registers: tuple[int, ...] = ()
    """KVM's ids of the registers that a move carries and that are not 0 in the guest's first vCPU."""
    sregs: Sregs | None = None
    """That vCPU's special registers; None from a source that does not say."""
    token: bytes = b""
    """The secret that the destination's owner gave out, if there is one."""
    devices: tuple[int, ...] = ()
    """The units of the guest's virtual devices, for which the destination must have some too."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination can take the guest."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The destination cannot take the guest, and why, in a line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Zeros:
    """A run of memory, in bytes, that is all zeros: only its size is sent."""

    size: int

    def __len__(self) -> int:
        return self.size


Memory: TypeAlias = Iterable[tuple[int, bytes | memoryview | Zeros]]
"""Runs of whole pages: (address, contents). Each is consumed once, before the next is made."""


@dataclass(frozen=True, slots=True)
class Round:
    """Memory of a guest that runs on, as it was at some moment since its pages' log was last taken."""

    number: int
    """1, 2, …"""
    memory: Memory = ()
    """A wire sends it before the message itself."""


@dataclass(frozen=True, slots=True)
class Received:
    """The destination has all memory that was sent until now."""


@dataclass(frozen=True, slots=True)
class Past:
    """A part of the stopped guest's recorded past. The destination forgets it if it keeps no past.

    Only guests in virtual time have one, and only destinations that know this message take these from other
    processes: it needed no version of the stream's own.
    """

    part: PastPart


@dataclass(frozen=True, slots=True)
class State:
    """The stopped guest: everything but how its time continues."""

    machine: MachineState
    vcpus: tuple[VcpuState, ...]
    memory: Memory
    """The pages that the destination does not have as they are now. A wire sends them before the message
    itself.
    """
    typed: bytes = b""
    """What was typed for the guest and not read yet, if its console does not move with it."""
    paused_at: GuestTime | None = None
    """The guest's time at which its owner paused it; it arrives paused. None for a guest that runs."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The destination has everything and waits for COMMIT."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Say READY again: its flight is to take as long as COMMIT's.

    The first READY comes behind much work of both sides, and on busy machines it takes longer than COMMIT
    does. Half the difference would be an error of the guest's clock, and these would add up over many moves.
    """


@dataclass(frozen=True, slots=True)
class Commit:
    """The guest is the destination's. Its time was sampled `since_sample` before this; READY came `dwell`
    before.
    """

    guest_time: GuestTime
    """The guest's time at the sample."""
    ideal: IdealInterval
    """How far it was ahead of its ideal then."""
    since_sample: Ticks
    dwell: Ticks


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The guest's time was set: it runs at the destination as soon as the rounding has been waited out."""

    record: MoveRecord


@dataclass(frozen=True, slots=True)
class Running:
    """The guest runs; `after` is how long after the moment from which it was allowed to."""

    after: Ticks


@dataclass(frozen=True, slots=True)
class Aborted:
    """The destination has given the move up, and will never run the guest; `reason` is a line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Query:
    """What became of the move?"""

    move: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The destination has no outcome under that id: it never had COMMIT."""


Message: TypeAlias = (
    Offer
    | Accepted
    | Refused
    | Round
    | Received
    | Past
    | State
    | Ready
    | Measure
    | Commit
    | Acknowledged
    | Running
    | Aborted
    | Query
    | Unknown
)
