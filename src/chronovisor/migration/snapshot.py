"""Saving a guest in a file: a snapshot, as `snapshot_format` says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chronovisor.machine import vcpu_state
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.memory.in_use import runs_in_use
from chronovisor.migration import snapshot_format as form
from chronovisor.migration.errors import StreamError
from chronovisor.migration.guest_encoding import MACHINE, TYPED, VCPU
from chronovisor.migration.pause import Pause
from chronovisor.migration.snapshot_format import SectionWriter, SnapshotHeader
from chronovisor.migration.snapshot_time import SAVED_TIME, ReadClocks, SavedTime, read_clocks
from chronovisor.migration.whole_file import replacing
from chronovisor.timebase.types import Ticks


class NotSavedError(Exception):
    """A snapshot could not be written; a file of that name is as it was."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved, and what it took."""

    header: SnapshotHeader
    size: int
    """Of the file, in bytes."""
    stopped: Ticks
    """How long the guest was stopped for it, by its host's clock."""


def snapshot(
    guest: Guest, path: str | Path, paused: Pause | None = None, read: ReadClocks = read_clocks
) -> Saved:
    """Save `guest` in a file at `path`; it goes on afterwards if it ran before.

    The guest is stopped while it is written. A file that is there is replaced when the new one is whole and
    on the disk, and left as it is by any failure. `paused` says since when a guest is paused: that is when
    its time away begins. Raises MachineError for what cannot be saved so, NotSavedError for what the file
    system would not do.
    """
    source = guest.system.clock.source
    with _replacing(Path(path)) as file:
        with guest.held():
            if guest.end is not None:
                raise MachineError(f"{guest.name} has ended ({guest.end.message}): there is nothing to save")
            began = source.ticks()
            try:
                header = _write(guest, file, paused, read)
            except StreamError as error:
                raise MachineError(f"{guest.name} cannot be saved: {error}") from error
            stopped = Ticks(source.ticks() - began)
        size = file.tell()
    return Saved(header, size, stopped)


def _write(guest: Guest, file: BinaryIO, paused: Pause | None, read: ReadClocks) -> SnapshotHeader:
    clock, offset = guest.system.clock, guest.offset
    reading = read(clock.source)
    stopped_at = reading.ticks if paused is None else paused.stopped_at
    time = SavedTime(
        guest_time=clock.at(stopped_at) + offset,
        stopped_before=Ticks(reading.ticks - stopped_at),
        origin=clock.origin,
        reading=reading,
    )
    guest.platform.vio.flush()
    machine = guest.machine_state if paused is None else paused.machine_state()
    host, vcpus = guest.system.host, guest.vcpus
    runs = runs_in_use(guest.memory)
    header = SnapshotHeader(
        name=guest.name,
        memory_size=guest.memory.size,
        topology=guest.topology,
        pvr=host.pvr,
        frequency=host.frequency,
        dec_bits=guest.decrementer_bits,
        in_use=sum(size for _, size in runs),
        guest_time=time.guest_time,
    )
    writer = SectionWriter(file, header)
    writer.section(form.TIME, SAVED_TIME.write(time))
    writer.section(form.MACHINE, MACHINE.write(machine) + TYPED.write(guest.console.typed))
    for vcpu in vcpus:
        writer.section(form.VCPU, VCPU.write(vcpu_state.save(vcpu)))
    writer.memory(guest.memory, runs)
    writer.finish()
    return header


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Give the new file (`whole_file.replacing`); NotSavedError if that fails."""
    try:
        with replacing(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotSavedError(f"{path}: the snapshot could not be written: {reason}") from error
