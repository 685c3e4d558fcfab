"""Reading a snapshot: looking at what is in it, and having its guest go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from chronovisor.kvm.errors import KvmError
from chronovisor.machine.console import Console, Sink
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import FileError, open_regular
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.memory import GuestMemory
from chronovisor.migration import snapshot_format as form
from chronovisor.migration.errors import RestorationError, StreamError
from chronovisor.migration.guest_encoding import MACHINE, MACHINE_BEFORE, TYPED, VCPU
from chronovisor.migration.kinds import Cursor
from chronovisor.migration.preflight import obstacle
from chronovisor.migration.restoration import load
from chronovisor.migration.snapshot_format import SectionReader, SnapshotError, SnapshotHeader
from chronovisor.migration.snapshot_time import SAVED_TIME, ReadClocks, SavedTime, read_clocks
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT, HandoverError, Plan, Sample, plan
from chronovisor.timebase.history import Hop, HopKind
from chronovisor.timebase.policy import FREEZE, TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import Ticks

T = TypeVar("T")

MEMORY_LIMIT = 4 << 30
"""Bytes of memory that a snapshot's guest may have, unless more are allowed."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a snapshot has of its guest, but its memory."""

    header: SnapshotHeader
    time: SavedTime
    machine: MachineState
    typed: bytes
    """What was typed for the guest and not read yet."""
    vcpus: tuple[VcpuState, ...]
    runs: tuple[tuple[int, int], ...]
    """The memory that is in the snapshot, as (address, bytes); all other memory is zeros."""


def inspect(path: str | Path) -> Contents:
    """Read all of a snapshot and keep everything but the memory; SnapshotError if it is no snapshot."""
    with opened(path) as reader:
        return read_contents(reader, None)


@contextmanager
def opened(path: str | Path) -> Iterator[SectionReader]:
    """Open a snapshot and read its header; whatever SnapshotError comes then names the file."""
    try:
        with _open(Path(path)) as file:
            yield SectionReader(file)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from None


def restore_from(
    reader: SectionReader,
    host: Host,
    console: Console | Sink | BinaryIO | None = None,
    policy: TimePolicy = FREEZE,
    limit: Ticks = CLOCK_ERROR_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
    read: ReadClocks = read_clocks,
    changed_disks: bool = False,
) -> Restored:
    """Make a snapshot's guest on `host` and set its time by `policy`; `Restored.start` lets it go on.

    If that fails nothing is left on the host. Raises SnapshotError for a file that is no snapshot,
    MachineError for a guest that cannot be there or a time away that cannot count.
    """
    header = reader.header
    check(header, host, memory_limit)
    guest = host.prepare(
        header.memory_size, header.topology.vcpus, header.topology.threads, console, header.name or "guest"
    )
    try:
        contents = read_contents(reader, guest.memory)
        guest.console.type(contents.typed)
        loaded = load(guest, contents.machine, contents.vcpus)
        guest.platform.vio.take()
        if not changed_disks:
            guest.platform.vio.check_unchanged(contents.machine.devices)
        clock = host.system.clock
        away_clock, absence = contents.time.away(clock, read(clock.source), policy)
        decided = plan(Sample(contents.time.guest_time, guest.ideal), absence, limit, policy)
        guest = loaded.set_clock(decided.offset).set_deadlines().release()
        hop = Hop.planned(HopKind.RESTORE, away_clock, decided, contents.time.origin, clock.origin)
        guest.history = guest.history.then(hop)
    except BaseException as error:
        host.discard(guest)
        if isinstance(error, RestorationError | HandoverError | KvmError | LookupError):
            raise MachineError(f"the guest cannot be put together here: {error}") from error
        raise
    return Restored(guest, hop, contents, decided)


def check(header: SnapshotHeader, host: Host, memory_limit: int = MEMORY_LIMIT) -> None:
    """MachineError if the guest that the header describes cannot be on `host`, or has too much memory."""
    if header.memory_size > memory_limit:
        raise MachineError(
            f"the guest has {header.memory_size} bytes of memory, more than the limit of {memory_limit}; "
            "allow it with --memory-limit"
        )
    if (reason := obstacle(header, host.system)) is not None:
        raise MachineError(reason)


def restore(
    path: str | Path,
    host: Host,
    console: Console | Sink | BinaryIO | None = None,
    policy: TimePolicy | str = FREEZE,
    limit: Ticks = CLOCK_ERROR_LIMIT,
    memory_limit: int = MEMORY_LIMIT,
    changed_disks: bool = False,
) -> tuple[Guest, MoveRecord]:
    """Make the guest of the snapshot at `path` on `host`; return it, paused, and what that did to its time.

    `policy` says what counts of the time that it lay there: nothing, unless another is given (by its name,
    as in "catch-up" or "bounded:2.5"). A disk that was written to since then is refused, unless
    `changed_disks`. Raises SnapshotError for a file that is no snapshot, PolicyError for
    what is no policy, MachineError for what cannot be.
    """
    chosen = TimePolicy.parse(policy) if isinstance(policy, str) else policy
    with opened(path) as reader:
        restored = restore_from(
            reader, host, console, chosen, limit, memory_limit, changed_disks=changed_disks
        )
    return restored.start(running=False), restored.hop.record


@dataclass(frozen=True, slots=True)
class Restored:
    """A guest that was read from a snapshot; its time is set, and it does not run yet."""

    guest: Guest
    hop: Hop
    contents: Contents
    plan: Plan

    def start(self, running: bool = True) -> Guest:
        """Wait out the rounding and let the guest run, if it is to be `running`; return it."""
        clock = self.guest.system.clock
        clock.source.sleep_until(clock.ticks_at(self.plan.resume_at))
        if running:
            self.guest.resume()
        return self.guest


def read_contents(reader: SectionReader, memory: GuestMemory | None) -> Contents:
    """Read what follows the header, memory into `memory` or past it; SnapshotError if it is no snapshot."""
    header = reader.header
    try:
        time = _decoded(SAVED_TIME.read, reader.section(form.TIME))
        kind = MACHINE if reader.version == form.VERSION else MACHINE_BEFORE
        machine, typed = _decoded(lambda c: (kind.read(c), TYPED.read(c)), reader.section(form.MACHINE))
        vcpus = tuple(_decoded(VCPU.read, reader.section(form.VCPU)) for _ in range(header.topology.vcpus))
    except StreamError as error:
        raise SnapshotError(f"it is damaged: {error}") from None
    if len(machine.stopped) != len(vcpus) or time.guest_time != header.guest_time:
        raise SnapshotError("it is damaged: its header tells of another guest")
    runs: list[tuple[int, int]] = []
    for addr, size in reader.memory(memory):
        if runs and sum(runs[-1]) == addr:
            runs[-1] = (runs[-1][0], runs[-1][1] + size)
        else:
            runs.append((addr, size))
    return Contents(header, time, machine, typed, vcpus, tuple(runs))


def _decoded(read: Callable[[Cursor], T], payload: bytes) -> T:
    cursor = Cursor(payload)
    value = read(cursor)
    cursor.finish()
    return value


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except FileError as error:
        raise SnapshotError(f"it cannot be read: {error}") from None
