"""The form of a snapshot: a plain header, which can be read without decoding anything else, then sections.

The header (144 bytes; all numbers are big-endian):

    bytes   0-7   magic: 89 43 48 52 53 4E 50 0A
            8-9   version of the format
           10-11  length of the header
           12-15  threads of each virtual core
           16-23  the guest's memory in bytes
           24-27  vCPUs
           28-31  processor version (PVR)
           32-39  timebase ticks a second
           40-47  how much of the memory is in the file, in bytes
           48-51  bits of the guest's decrementer
           52-55  0
           56-63  the guest's timebase
           64-71  0
           72-135 the guest's name, UTF-8, filled up with zeros
          136-139 0
          140-143 CRC-32 of the bytes before

A section is a head of 24 bytes and a payload:

    bytes   0-3   kind: four letters
            4-7   length of the payload
            8-15  the address of memory; 0 in other sections
           16-19  CRC-32 of the payload
           20-23  CRC-32 of the head until here

The sections are, in this order: TIME (`snapshot_time.SavedTime`), MACH (what user space keeps of the guest,
and what was typed and not read), VCPU for each vCPU, MEMO for each run of pages that are not all zeros, in
rising order and none overlapping, and TAIL, behind which nothing comes. A head is checked before its length
is believed, and no section makes the reader allocate more than its kind may have; memory is read straight
into the guest's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final
from zlib import crc32

from chronovisor.machine.errors import ImageError, MachineError
from chronovisor.machine.sizes import Topology, check_topology, parse_size
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.timebase.types import GuestTime

MAGIC: Final = b"\x89CHRSNP\n"
VERSION: Final = 3
OLDEST_VERSION: Final = 2

TIME: Final = b"TIME"
MACHINE: Final = b"MACH"
VCPU: Final = b"VCPU"
MEMORY: Final = b"MEMO"
TAIL: Final = b"TAIL"
LIMITS: Final = {TIME: 1 << 10, MACHINE: 1 << 23, VCPU: 1 << 14, MEMORY: 1 << 20, TAIL: 0}
"""Each kind of section, and how long one can be, in bytes."""

_HEADER: Final = struct.Struct(">8sHHIQIIQQIIQQ64sI")
_HEAD: Final = struct.Struct(">4sIQI")
_CRC: Final = struct.Struct(">I")
_VERSION: Final = struct.Struct(">8sH")
_NAME_BYTES: Final = 64
HEADER_SIZE: Final = _HEADER.size + _CRC.size
HEAD_SIZE: Final = _HEAD.size + _CRC.size


class SnapshotError(ImageError):
    """A file that is no snapshot, or a snapshot that this version cannot read; one line for people."""


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a snapshot says of its guest before all else."""

    name: str
    memory_size: int
    """In bytes."""
    topology: Topology
    pvr: int
    frequency: int
    """Timebase ticks a second."""
    dec_bits: int
    """Width of the guest's decrementer."""
    in_use: int
    """Bytes of memory that are in the file: whole pages."""
    guest_time: GuestTime
    """The guest's time when it was stopped."""

    def encode(self) -> bytes:
        """Return the header as the file has it."""
        data = _HEADER.pack(
            MAGIC,
            VERSION,
            HEADER_SIZE,
            self.topology.threads,
            self.memory_size,
            self.topology.vcpus,
            self.pvr,
            self.frequency,
            self.in_use,
            self.dec_bits,
            0,
            self.guest_time.value,
            0,
            self.name.encode()[:_NAME_BYTES].decode(errors="ignore").encode(),
            0,
        )
        return data + _CRC.pack(crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> SnapshotHeader:
        """Return the header; SnapshotError if it is no header, damaged, or of another version."""
        if len(data) < _VERSION.size or data[: len(MAGIC)] != MAGIC:
            raise SnapshotError("it is no snapshot of a Chronovisor guest")
        _, version = _VERSION.unpack_from(data)
        if not OLDEST_VERSION <= version <= VERSION:
            raise SnapshotError(
                f"it is of format version {version}, "
                f"and this Chronovisor reads {OLDEST_VERSION} to {VERSION}: "
                + ("update it" if version > VERSION else "an older one reads that")
            )
        if len(data) != HEADER_SIZE:
            raise SnapshotError("it ends within its header")
        _check(data)
        (_, _, size, threads, memory_size, vcpus, pvr, frequency, in_use, dec_bits, *rest) = (
            _HEADER.unpack_from(data)
        )
        none, guest_time, nothing, name, nought = rest
        if size != HEADER_SIZE or none or nothing or nought or in_use > memory_size or in_use % PAGE_SIZE:
            raise SnapshotError("its header makes no sense")
        try:
            topology = check_topology(vcpus, threads)
            parse_size(memory_size)
            text = name.rstrip(b"\0").decode()
        except (MachineError, UnicodeDecodeError) as error:
            raise SnapshotError(f"its header makes no sense: {error}") from None
        if not text.isprintable():
            raise SnapshotError("its header makes no sense: the guest's name cannot be printed")
        return cls(text, memory_size, topology, pvr, frequency, dec_bits, in_use, GuestTime(guest_time))


class SectionWriter:
    """Writes a snapshot from front to back."""

    def __init__(self, file: BinaryIO, header: SnapshotHeader) -> None:
        self._file = file
        file.write(header.encode())

    def section(self, kind: bytes, payload: bytes | memoryview, addr: int = 0) -> None:
        """Write one section."""
        head = _HEAD.pack(kind, len(payload), addr, crc32(payload))
        self._file.write(head + _CRC.pack(crc32(head)))
        self._file.write(payload)

    def memory(self, memory: GuestMemory, runs: list[tuple[int, int]]) -> None:
        """Write these runs of (address, bytes)."""
        largest = LIMITS[MEMORY]
        for addr, size in runs:
            for at in range(addr, addr + size, largest):
                self.section(MEMORY, memory.view[at : min(at + largest, addr + size)], at)

    def finish(self) -> None:
        """Write the end."""
        self.section(TAIL, b"")


class SectionReader:
    """Reads a snapshot from front to back; all methods raise SnapshotError for what is no snapshot."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = self._up_to(HEADER_SIZE)
        self.header = SnapshotHeader.decode(header)
        self.version: int = _VERSION.unpack_from(header)[1]

    def section(self, kind: bytes) -> bytes:
        """Return the payload of the next section, which is of this kind; not for memory."""
        found, size, addr, checksum = self._head()
        if found != kind or addr:
            raise SnapshotError(f"it is damaged: a section {_shown(found)} comes when {_shown(kind)} is due")
        payload = self._exactly(size)
        _compare(crc32(payload), checksum)
        return payload

    def memory(self, into: GuestMemory | None = None) -> Iterator[tuple[int, int]]:
        """Read memory `into` a guest's, or just past it, up to the end of the file; the runs that came, as
        (address, bytes).
        """
        behind = came = 0
        unwanted = bytearray(LIMITS[MEMORY] if into is None else 0)
        while True:
            kind, size, addr, checksum = self._head()
            if kind == TAIL:
                break
            if kind != MEMORY:
                raise SnapshotError(f"it is damaged: a section {_shown(kind)} among its memory")
            if not size or size % PAGE_SIZE or addr % PAGE_SIZE or addr < behind:
                raise SnapshotError(f"it is damaged: {size} bytes for {addr:#x} are no pages in turn")
            behind, came = addr + size, came + size
            if behind > self.header.memory_size:
                raise SnapshotError(
                    f"it is damaged: memory for {behind - 1:#x}, which the guest does not have"
                )
            view = memoryview(unwanted)[:size] if into is None else into.view[addr:behind]
            self._fill(view)
            _compare(crc32(view), checksum)
            if into is not None:
                into.dirty.mark(addr, size)
            yield addr, size
        if size or addr or came != self.header.in_use or self._file.read(1):
            raise SnapshotError("it is damaged: its end is not where it should be")

    def _head(self) -> tuple[bytes, int, int, int]:
        head = self._exactly(HEAD_SIZE)
        _check(head)
        kind, size, addr, checksum = _HEAD.unpack_from(head)
        if size > LIMITS.get(kind, -1):
            raise SnapshotError(f"it is damaged: a section {_shown(kind)} of {size} bytes")
        return kind, size, addr, checksum

    def _exactly(self, size: int) -> bytes:
        data = self._up_to(size)
        if len(data) < size:
            raise SnapshotError("it is cut off")
        return data

    def _up_to(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise SnapshotError(f"it cannot be read: {error.strerror or error}") from None

    def _fill(self, view: memoryview) -> None:
        try:
            # `readinto` of a buffered file (`BinaryIO` has none) fills all of it unless the file ends.
            if self._file.readinto(view) != len(view):  # type: ignore[attr-defined]
                raise SnapshotError("it is cut off")
        except OSError as error:
            raise SnapshotError(f"it cannot be read: {error.strerror or error}") from None


def _shown(kind: bytes) -> str:
    # It may be anything, and is shown on a terminal.
    return ascii(kind).removeprefix("b")


def _check(data: bytes) -> None:
    _compare(crc32(data[: -_CRC.size]), _CRC.unpack(data[-_CRC.size :])[0])


def _compare(found: int, checksum: int) -> None:
    if found != checksum:
        raise SnapshotError("it is damaged: a checksum is not that of what is there")
