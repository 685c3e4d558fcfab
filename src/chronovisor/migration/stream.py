"""The stream of a move: a plain header, then frames, one way and the other.

The header (48 bytes, big-endian) can be read without decoding anything else:

    bytes  0-7   magic: 89 43 48 52 4F 4E 4F 0A
           8-9   version of the format
          10-11  length of the header
          12-15  threads of each virtual core
          16-23  the guest's memory in bytes
          24-27  vCPUs
          28-31  0
          32-39  timebase ticks a second
          40-43  0
          44-47  CRC-32 of the bytes before

A side without a guest (a destination, or a source that only asks) writes 0 into all fields about the guest.
A frame is a head of 32 bytes and a payload:

    bytes  0-3   the frame's number: 0, 1, 2, … in each direction
           4-5   kind: that of a message (`encoding.KINDS`), 100 for memory, 101 for memory that is all zeros
           6-7   0
           8-11  length of the payload
          12-19  the address of memory; 0 in messages
          20-23  0
          24-27  CRC-32 of the payload
          28-31  CRC-32 of the head until here

Memory that is all zeros has its size in bytes (8 bytes) as its payload. Version 4 added the message
`Measure`, version 5 the guest's virtual devices to an offer and to its state. (`Past` came later: it goes
only to hosts that take guests in virtual time, which all know it.) This version is written; versions 4 and 5
are read. The two directions of one move have one version: the destination answers in the
source's.

The head's checksum is verified before its length is used, so the reader never waits for a damaged length. No
frame makes the reader allocate more than `MAXIMUM_STATE`. Memory is read directly into the guest's memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from zlib import crc32

from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.sizes import Topology, check_topology, parse_size
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.in_use import clear, have_ready
from chronovisor.migration.encoding import KINDS, KINDS_BEFORE, NUMBERS, decode, encode
from chronovisor.migration.errors import StreamError
from chronovisor.migration.messages import Message, Offer, Past, Round, State, Zeros
from chronovisor.timebase.types import FREQUENCY

MAGIC: Final = b"\x89CHRONO\n"
VERSION: Final = 5
OLDEST_VERSION: Final = 4
"""The oldest that is read."""
MEMORY: Final = 100
"""The kind of frames that carry memory."""
ZEROS: Final = 101
"""The kind of frames that name memory which is all zeros."""
MAXIMUM_RUN: Final = 1 << 20
"""Bytes of memory in one frame."""
MAXIMUM_MESSAGE: Final = 1 << 18
"""Bytes of a message, but a State's or a Past's, …"""
MAXIMUM_STATE: Final = 1 << 23
"""… which 256 vCPUs and the full TCE tables of 10 devices fill to less than this."""
PIECE: Final = 1 << 18
"""Bytes of memory that are read at a time, so that they are checked while the next ones arrive."""

_OF_MEMORY: Final = (MEMORY, ZEROS)
_HEADER: Final = struct.Struct(">8sHHIQIIQI")
_HEAD: Final = struct.Struct(">IHHIQII")
_CRC: Final = struct.Struct(">I")
_VERSION: Final = struct.Struct(">8sH")
_SIZE: Final = struct.Struct(">Q")


class Pipe(Protocol):
    """What a stream goes through, either way."""

    def read_into(self, view: memoryview) -> None:
        """Fill all of `view`; StreamError if the stream ends earlier."""

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all the pieces, one after the other; LinkLostError if that is known to fail."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream says about its guest before all else; all 0 if there is no guest."""

    memory_size: int = 0
    """In bytes."""
    vcpus: int = 0
    threads: int = 0
    """Of each virtual core."""
    frequency: int = FREQUENCY
    """Timebase ticks a second."""

    @classmethod
    def of(cls, guest: Guest) -> Header:
        """Return the header for this guest."""
        topology = guest.topology
        return cls(guest.memory.size, topology.vcpus, topology.threads, guest.system.host.frequency)

    @property
    def topology(self) -> Topology:
        """The guest's topology; StreamError if no guest can have it."""
        try:
            return check_topology(self.vcpus, self.threads)
        except MachineError as error:
            raise StreamError(str(error)) from None

    def encode(self, version: int = VERSION) -> bytes:
        """Return the header as a stream of this version has it."""
        data = _HEADER.pack(
            MAGIC,
            version,
            _HEADER.size + _CRC.size,
            self.threads,
            self.memory_size,
            self.vcpus,
            0,
            self.frequency,
            0,
        )
        return data + _CRC.pack(crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Return the header; StreamError if the bytes are no header, or damaged, or of an unknown version."""
        magic, version = _VERSION.unpack_from(data)
        if magic != MAGIC:
            raise StreamError("this is no stream of a Chronovisor guest")
        if not OLDEST_VERSION <= version <= VERSION:
            side = "this side" if version > VERSION else "the other side"
            raise StreamError(
                f"the stream is of format version {version}, and this Chronovisor reads versions "
                f"{OLDEST_VERSION} to {VERSION}: update {side}"
            )
        _check(data)
        _, _, size, threads, memory_size, vcpus, none, frequency, nothing = _HEADER.unpack_from(data)
        if size != len(data) or none or nothing:
            raise StreamError(f"the stream's header makes no sense in format version {version}")
        return cls(memory_size, vcpus, threads, frequency)

    def check_offer(self, offer: Offer) -> None:
        """StreamError if the offer is for another guest than the header."""
        said = Header(offer.memory_size, *offer.topology, offer.frequency)
        if said != self:
            raise StreamError(f"the header tells of one guest ({self}), the offer of another ({said})")
        try:
            parse_size(self.memory_size)
        except MachineError as error:
            raise StreamError(str(error)) from None

    def __str__(self) -> str:
        return f"{self.memory_size} bytes, {self.vcpus} vCPUs, {self.threads} threads, {self.frequency} Hz"


_LIMITS: Final = {
    **dict.fromkeys((NUMBERS[State], NUMBERS[Past]), MAXIMUM_STATE),
    MEMORY: MAXIMUM_RUN,
    ZEROS: _SIZE.size,
}
HEADER_SIZE: Final = _HEADER.size + _CRC.size
HEAD_SIZE: Final = _HEAD.size + _CRC.size


class Writer:
    """One direction of a stream, as its sender sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._number = 0

    def header(self, header: Header, version: int = VERSION) -> None:
        """Begin the stream; `version` is that of the stream that it answers."""
        self._pipe.write([header.encode(version)])

    def message(self, message: Message) -> None:
        """Send a message; its memory goes ahead of it."""
        if isinstance(message, State | Round):
            for addr, run in message.memory:
                if isinstance(run, Zeros):
                    self._frame(ZEROS, addr, _SIZE.pack(run.size))
                else:
                    self._memory(addr, memoryview(run))
        self._frame(NUMBERS[type(message)], 0, encode(message))

    def _memory(self, addr: int, run: memoryview) -> None:
        for at in range(0, len(run), MAXIMUM_RUN):
            self._frame(MEMORY, addr + at, run[at : at + MAXIMUM_RUN])

    def _frame(self, kind: int, addr: int, payload: bytes | memoryview) -> None:
        head = _HEAD.pack(self._number, kind, 0, len(payload), addr, 0, crc32(payload))
        self._pipe.write([head + _CRC.pack(crc32(head)), payload])
        self._number += 1


class Reader:
    """One direction of a stream, as its receiver sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._number = 0
        self.version = VERSION
        """The stream's version, once `header` has read it."""

    def header(self) -> Header:
        """Read the header; StreamError as `Header.decode` says."""
        # The version comes first. Of a header of an unknown version not even the length is known.
        start = self._read(_VERSION.size)
        magic, version = _VERSION.unpack(start)
        if magic != MAGIC or not OLDEST_VERSION <= version <= VERSION:
            return Header.decode(start)
        self.version = version
        return Header.decode(start + self._read(HEADER_SIZE - len(start)))

    def message(self, memory: GuestMemory | None = None) -> Message:
        """Return the next message; memory that comes ahead of it goes into `memory`.

        StreamError for whatever is no such stream, or ends before a message is whole.
        """
        for kind, size, addr, checksum in self._heads():
            if kind in _OF_MEMORY and memory is None:
                raise StreamError("memory comes when none is expected")
            if kind == MEMORY and memory is not None:
                self._into(memory, addr, size, checksum)
                continue
            payload = self._read(size)
            _compare(crc32(payload), checksum)
            if kind != ZEROS:
                return decode(kind, payload, KINDS if self.version == VERSION else KINDS_BEFORE)
            if memory is not None:
                (size,) = _SIZE.unpack(payload)
                _check_run(memory, addr, size, memory.size)
                clear(memory, addr, size)
        raise AssertionError("a stream of heads does not end")

    def _heads(self) -> Iterator[tuple[int, int, int, int]]:
        while True:
            head = self._read(HEAD_SIZE)
            _check(head)
            number, kind, none, size, addr, nothing, checksum = _HEAD.unpack_from(head)
            if number != self._number:
                raise StreamError(f"frame {number} comes when frame {self._number} is due")
            self._number += 1
            limit = _LIMITS.get(kind, MAXIMUM_MESSAGE)
            exact = kind != ZEROS or size == limit
            if none or nothing or size > limit or not exact or (addr and kind not in _OF_MEMORY):
                raise StreamError(f"a frame of kind {kind} with {size} bytes makes no sense")
            yield kind, size, addr, checksum

    def _into(self, memory: GuestMemory, addr: int, size: int, checksum: int) -> None:
        _check_run(memory, addr, size, MAXIMUM_RUN)
        # Never more than the frame that comes now: a peer that claims much makes the machine provide nothing.
        have_ready(memory, addr, size)
        found = 0
        for at in range(addr, addr + size, PIECE):
            piece = memory.view[at : min(at + PIECE, addr + size)]
            self._pipe.read_into(piece)
            found = crc32(piece, found)
        memory.dirty.mark(addr, size)
        _compare(found, checksum)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        self._pipe.read_into(memoryview(data))
        return bytes(data)


def _check_run(memory: GuestMemory, addr: int, size: int, limit: int) -> None:
    if addr % PAGE_SIZE or size % PAGE_SIZE or not 0 < size <= limit:
        raise StreamError(f"{size} bytes of memory for {addr:#x} are no pages")
    if addr + size > memory.size:
        raise StreamError(
            f"memory for {addr:#x} to {addr + size - 1:#x} comes for a guest of {memory.size:#x} bytes"
        )


def _check(data: bytes) -> None:
    _compare(crc32(data[: -_CRC.size]), _CRC.unpack(data[-_CRC.size :])[0])


def _compare(found: int, checksum: int) -> None:
    if found != checksum:
        raise StreamError("the stream is damaged: a checksum is not that of what came")
