"""What the tests drive virtual devices with: a guest's driver, in Python, over a piece of memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chronovisor.machine.disk import DiskOption
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.bus import VioBus
from chronovisor.machine.vio.device import Surroundings
from chronovisor.machine.vio.dma_window import Access
from chronovisor.machine.vio.vscsi import DiskAdapter
from chronovisor.memory import GuestMemory
from chronovisor.papr.hcalls import Status

MEMORY: Final = 4 << 20
QUEUE: Final = 0x10000
"""Real address of the queue, and its I/O address: the driver maps memory to itself."""
QUEUE_SIZE: Final = 0x1000
UNITS: Final = 0x20000
"""Of the information units, 256 bytes each."""
DATA: Final = 0x100000
TAG: Final = 0xC000_0000_1234_5678
LUN: Final = 0x8000 << 48


class Driver:
    """Drives the adapter of one disk as Linux does."""

    def __init__(self, path: Path, *options: str, virtual: bool = True) -> None:
        self.memory = GuestMemory(MEMORY)
        self.changed: list[tuple[int, int]] = []
        self.interrupts: list[int] = []
        self.troubles: list[str] = []
        around = Surroundings(
            self.memory,
            lambda *where: self.changed.append(where),
            self.interrupts.append,
            virtual,
            self.troubles.append,
        )
        option = DiskOption.parse(",".join((str(path).replace(",", ",,"), *options)))
        self.bus = VioBus(Attachments((option,)).open(around))
        (device,) = self.bus.devices
        assert isinstance(device, DiskAdapter)
        self.adapter = device
        self.bus.take()
        self._slot = self._read = 0

    def begin(self) -> None:
        """Map all memory, register a queue and log in."""
        both = Access.READ | Access.WRITE
        assert self.adapter.window.put(0, [page | both for page in range(0, MEMORY, 4096)])
        assert self.adapter.register_queue(QUEUE, QUEUE_SIZE) == Status.SUCCESS
        self.adapter.signals = True
        assert self.adapter.send(bytes([0xC0, 1]) + bytes(14)) == Status.SUCCESS
        assert self.message()[:2] == bytes([0xC0, 2])
        login = self.ask(struct.pack(">B7xQI2xH", 0, TAG, 256, 6))
        assert login[0] == 0xC0

    def close(self) -> None:
        self.bus.close()

    def message(self) -> bytes | None:
        """Take the next message out of the queue; None if there is none."""
        self.adapter.pause()
        at = QUEUE + self._read
        message = self.memory.read(at, 16)
        if not message[0]:
            return None
        self.memory.write(at, bytes(1))
        self._read = (self._read + 16) % QUEUE_SIZE
        return message

    def post(self, unit: bytes, form: int = 1) -> Status:
        """Send an information unit, and do not wait for its answer."""
        at = UNITS + 256 * self._slot
        self._slot = (self._slot + 1) % 256
        self.memory.write(at, unit.ljust(256, b"\0"))
        return self.adapter.send(struct.pack(">BBxxHHQ", 0x80, form, 0, 256, at))

    def ask(self, unit: bytes, form: int = 1) -> bytes:
        """Send an information unit and return what stands in its place when the answer came."""
        at = UNITS + 256 * self._slot
        assert self.post(unit, form) == Status.SUCCESS
        message = self.message()
        assert message is not None
        _, got, size, tag = struct.unpack(">BB4xHQ", message)
        assert (got, tag) == (form, TAG)
        return self.memory.read(at, size)

    def command(
        self,
        cdb: bytes,
        into: Sequence[tuple[int, int]] = (),
        out: Sequence[tuple[int, int]] = (),
        lun: int = LUN,
    ) -> tuple[int, tuple[int, int, int]]:
        """Do a SCSI command; return its status, and its sense key, code and qualifier."""
        answer = self.ask(unit(cdb, into, out, lun))
        opcode, flags, status, sense_size = struct.unpack_from(">B17xBB8xI", answer)
        assert opcode == 0xC1
        sense = answer[36 : 36 + sense_size]
        assert bool(sense) == bool(flags & 2) == (status == 2)
        return status, (sense[2], sense[12], sense[13]) if sense else (0, 0, 0)

    def data(self, cdb: bytes, size: int) -> bytes:
        """Do a command that succeeds, and return what it hands to the guest."""
        self.memory.write(DATA, b"\xee" * size)
        assert self.command(cdb, into=[(DATA, size)])[0] == 0
        return self.memory.read(DATA, size)


def unit(
    cdb: bytes,
    into: Sequence[tuple[int, int]] = (),
    out: Sequence[tuple[int, int]] = (),
    lun: int = LUN,
) -> bytes:
    """Return an SRP command whose data lies in these pieces, of which ten fit the unit."""
    formats, counts, descriptors = 0, [0, 0], b""
    for place, pieces, shift in ((0, out, 4), (1, into, 0)):
        if len(pieces) == 1:
            formats |= 1 << shift
            descriptors += struct.pack(">QII", pieces[0][0], 0, pieces[0][1])
        elif pieces:
            formats |= 2 << shift
            counts[place] = len(pieces)
            total = sum(size for _, size in pieces)
            descriptors += struct.pack(">QIII", 0, 0, 16 * len(pieces), total & 0xFFFF_FFFF)
            descriptors += b"".join(struct.pack(">QII", at, 0, size) for at, size in pieces)
    head = struct.pack(">B4xBBBQ4xQ4x16s", 2, formats, *counts, TAG, lun, cdb.ljust(16, b"\0"))
    return head + descriptors


def read_16(first: int, count: int) -> bytes:
    return struct.pack(">BBQI", 0x88, 0, first, count)


def write_16(first: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQI", 0x8A, flags, first, count)
