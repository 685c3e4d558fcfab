"""Guests that send rubbish to their devices: each call has a status, nothing grows, and the devices go on."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from test_lan_merging import segments
from test_network import MAC, Wire, frame, give
from vio_driver import LUN, TAG, read_16, unit, write_16

from chronovisor.machine.device_hypercalls import HANDLERS
from chronovisor.machine.disk import DiskOption
from chronovisor.machine.disk_file import DiskFile
from chronovisor.machine.network import LARGEST_FRAME
from chronovisor.machine.vio.bus import VioBus
from chronovisor.machine.vio.device import Surroundings
from chronovisor.machine.vio.lan import NetworkAdapter
from chronovisor.machine.vio.lan_buffers import MOST_BUFFERS
from chronovisor.machine.vio.vscsi import DiskAdapter
from chronovisor.memory import GuestMemory
from chronovisor.memory.word_queue import WORDS
from chronovisor.memory.words import words
from chronovisor.migration.device_encoding import DEVICES
from chronovisor.migration.kinds import Cursor
from chronovisor.papr.hcalls import Hcall, Status

SIZE = 2 << 20
MAPPED = 1 << 20
"""Guests map this much memory at most; what is behind it stays as it is."""
BEHIND = b"\x5a" * 4096
SECTORS = 256
DISK, CARD = 0x7100_0010, 0x7100_0020
FIRSTS, COUNTS = (0, 1, SECTORS - 1, SECTORS, 1 << 63), (0, 1, 8, 2048, 1 << 31)
CDBS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda chance: read_16(chance.choice(FIRSTS), chance.choice(COUNTS)),
    lambda chance: write_16(chance.choice(FIRSTS), chance.choice(COUNTS), chance.choice((0, 8))),
    lambda chance: bytes([0x12, chance.choice((0, 1)), chance.choice((0, 0x80, 0x83, 0xB0, 9)), 0, 99]),
    lambda chance: bytes([0x42, *bytes(6), 0, chance.choice((0, 4, 24, 255))]),
    lambda chance: bytes([chance.choice((0x1A, 0x5A)), 0, chance.choice((8, 0x3F, 3)), 0, 99, 0, 0, 0, 99]),
    lambda chance: chance.randbytes(16),
    lambda chance: bytes([chance.choice((0x00, 0x03, 0x25, 0x35, 0x9E, 0xA0, 0x91, 0x2F)), 0x10]),
)


class Forgetful(list[bytes]):
    """Keeps nothing."""

    def append(self, value: bytes) -> None:
        """Forget it."""


class Rubbish:
    """One guest that does random things, all of which follow from its seed."""

    def __init__(self, path: Path, seed: int, threaded: bool = False) -> None:
        self.chance = random.Random(seed)
        self.path, self.threaded = path, threaded
        self.memory = GuestMemory(SIZE)
        for page in range(MAPPED, SIZE, 4096):
            self.memory.write(page, BEHIND)
        self.troubles: list[str] = []
        self.moves = 0
        """How often it has moved."""
        self.merged = 0
        """How many large frames it was given."""
        self.attach()
        self.bus.resume()
        self.begin()

    def attach(self) -> None:
        """Have devices as on a host to which no guest has come yet."""
        self.buffers = words(WORDS)
        around = Surroundings(
            self.memory,
            lambda *_: None,
            lambda source: None,
            not self.threaded,
            self.troubles.append,
            lan_buffers=lambda unit: self.buffers,
        )
        self.wire = Wire()
        self.wire.in_memory, self.wire.sent = True, Forgetful()
        self.disk = DiskAdapter(DISK, around, DiskFile(DiskOption(str(self.path))))
        self.card = NetworkAdapter(CARD, around, MAC, self.wire)
        self.bus = VioBus([self.disk, self.card])
        self.machine: Any = SimpleNamespace(memory=self.memory, vio=self.bus, console_signals=True)
        fill = self.card._receiver._fill

        def count(address: int, frame: bytes | memoryview, segment: int) -> None:
            self.merged += segment > 0
            fill(address, frame, segment)

        # In place of the method, which it calls.
        self.card._receiver._fill = count  # type: ignore[method-assign]

    def call(self, number: int, *args: int) -> Status:
        answer = HANDLERS[number](self.machine, None, (*args, *[0] * (9 - len(args))))  # type: ignore[arg-type]
        assert answer.status in Status
        assert all(0 <= result < 1 << 64 for result in answer.results)
        return answer.status

    def begin(self) -> None:
        """What a driver that knows its devices does."""
        self.memory.write(0, struct.pack(">256Q", *(page * 4096 | 3 for page in range(256))))
        for device in self.bus.devices:
            assert self.call(Hcall.PUT_TCE_INDIRECT, device.window_number, 0, 0, 256) == Status.SUCCESS
        self.memory.write(0x1000, bytes(0x1000))
        assert self.call(Hcall.REG_CRQ, DISK, 0x1000, 0x1000) == Status.SUCCESS

    # What it may do

    def number(self) -> int:
        """A number that means something, or not."""
        chance = self.chance
        return chance.choice(
            (
                chance.randrange(0, MAPPED, 4096),
                chance.randrange(MAPPED),
                chance.choice((0, 1, 16, 4096, MAPPED, SIZE, (1 << 28) - 8, 1 << 28, 1 << 63, (1 << 64) - 1)),
                chance.getrandbits(chance.choice((8, 16, 32, 64))),
            )
        )

    def descriptor(self) -> int:
        size = self.chance.choice((0, 1, 8, 16, 60, 512, 2048, 65536, 0xFF_FFFF))
        return self.chance.choice((1 << 63, 1 << 63, 0)) | size << 32 | self.number() & 0xFFFF_FFFF

    def map(self) -> None:
        entries = [page * 4096 | 3 for page in range(MAPPED // 4096)]
        for _ in range(self.chance.choice((0, 0, 0, 10))):
            # Pages without access, memory that is not there, and I/O pages that share real ones.
            entry = self.chance.choice((0, 1, 2, SIZE | 3, entries[0]))
            entries[self.chance.randrange(len(entries))] = entry
        self.memory.write(0, struct.pack(">256Q", *entries))
        for device in self.bus.devices:
            self.call(Hcall.PUT_TCE_INDIRECT, device.window_number, 0, 0, len(entries))

    def queue(self) -> None:
        self.call(Hcall.REG_CRQ, DISK, self.chance.choice((0x1000, 0x8000, self.number())), 0x1000)
        self.call(Hcall.VIO_SIGNAL, self.chance.choice((DISK, CARD, 7)), self.chance.choice((0, 1, 2)))

    def pieces(self, places: Sequence[int]) -> list[tuple[int, int]]:
        sizes = (0, 36, 512, 4096, 1 << 20, (1 << 32) - 1)
        count = self.chance.choice((0, 1, 2, 9))
        return [(self.chance.choice(places), self.chance.choice(sizes)) for _ in range(count)]

    def request(self) -> None:
        """A request whose unit, data, and queue may lie in each other."""
        chance = self.chance
        places = (0x1000, 0x8000, 0x20000, chance.randrange(MAPPED))
        into = self.pieces(places)
        out = () if into else self.pieces(places)
        data = bytearray(unit(chance.choice(CDBS)(chance), into, out, LUN))
        for _ in range(chance.choice((0, 0, 0, 1, 3, 30))):
            data[chance.randrange(len(data))] = chance.getrandbits(8)
        at = chance.choice(places)
        self.memory.write(at, bytes(data[: MAPPED - at]))
        form, size = chance.choice((1, 1, 1, 2, 5)), chance.choice((256, 48, 3))
        message = struct.unpack(">QQ", struct.pack(">BBxxHHQ", 0x80, form, 0, size, at))
        # Sometimes more than may be under way.
        for _ in range(chance.choice((*[1] * 20, 200))):
            self.call(Hcall.SEND_CRQ, DISK, *message)

    def management(self) -> None:
        at = self.chance.randrange(MAPPED - 64)
        kind = self.chance.choice((1, 3, 5, 8, 99))
        self.memory.write(at, struct.pack(">IHHQQ", kind, 0, self.number() & 0xFFFF, TAG, self.number()))
        self.call(Hcall.SEND_CRQ, DISK, 0x8002_0000_0000_0018, at)

    def lan(self) -> None:
        """Registers, with a list, a queue and buffers that may lie in each other."""
        lists = (0x3000, 0x4000, 0x8000, self.number())
        queue = 1 << 63 | self.chance.choice((0x10, 0x40, 0x1000)) << 32 | 0x4000
        address = int.from_bytes(MAC, "big")
        self.call(Hcall.REGISTER_LOGICAL_LAN, CARD, self.number(), self.descriptor(), 0, 5)
        self.call(Hcall.REGISTER_LOGICAL_LAN, CARD, self.chance.choice(lists), queue, 0, address)
        self.call(Hcall.ILLAN_ATTRIBUTES, CARD, *self.chance.choice(((0, ~0), (0, 6), (~0, 0), (1, 2))))
        for _ in range(self.chance.choice((1, 5, 20, 5000))):
            self.give(self.descriptor())
        self.frames()

    def give(self, word: int) -> None:
        """Hand a buffer over, by a call or as native code does, which looks at it in the same way."""
        makes_sense = word >> 63 and word >> 32 & 0xFF_FFFF > 8 and not word & 3
        if makes_sense and self.chance.random() < 0.5:
            give(self.buffers, word)
        else:
            self.call(Hcall.ADD_LOGICAL_LAN_BUFFER, CARD, word)

    def pools(self) -> None:
        """Buffers of the sizes that drivers have, in places that may be the same."""
        for size in (512, 2048, 0x4000, 0x1_0000):
            for _ in range(self.chance.choice((0, 1, 40))):
                self.give(1 << 63 | size << 32 | self.chance.randrange(0, MAPPED, 512))

    def frames(self) -> None:
        """Frames of all sizes, and segments that could be merged, whole or cut off."""
        chance = self.chance
        sizes = (chance.randint(14, 70), chance.randint(14, 2000), LARGEST_FRAME)
        coming = [frame(chance.choice(sizes)) for _ in range(chance.randrange(4))]
        coming += segments(chance.choice((0, 0, 3, 60)), chance.choice((1, 536, 1460, 9000)))
        if coming and chance.random() < 0.3:
            place = chance.randrange(len(coming))
            coming[place] = coming[place][: chance.randrange(90)]
        self.wire.come(*map(bytes, coming), b"x" * 20)

    def take_back(self) -> None:
        """Buffers go while frames come for them."""
        self.pools()
        self.frames()
        for _ in range(self.chance.randrange(20)):
            size = self.chance.choice((512, 2048, 0x1_0000, self.number()))
            self.call(Hcall.FREE_LOGICAL_LAN_BUFFER, CARD, size)
        if self.chance.random() < 0.3:
            self.frames()
            self.call(Hcall.FREE_LOGICAL_LAN, CARD)

    def overflow(self) -> None:
        """More answers than a queue has room for that nobody reads."""
        for _ in range(300):
            self.call(Hcall.SEND_CRQ, DISK, 0xC001_0000_0000_0000, 0)

    def send_large(self) -> None:
        """A frame in pieces that are a frame together, or too much of one."""
        sizes = [self.chance.choice((1, 14, 1460, 0x3000, 0x8000)) for _ in range(6)]
        flags = self.chance.choice((0x80, 0x83, 0x87)) << 56
        places = [self.chance.randrange(MAPPED - size) for size in sizes]
        words = [flags | size << 32 | place for size, place in zip(sizes, places, strict=True)]
        self.call(Hcall.SEND_LOGICAL_LAN, CARD, *words, 0, self.chance.choice((0, 1460, 1 << 63)))

    def move(self) -> None:
        """Go on with other devices, from what a stream or a snapshot has of these."""
        self.bus.pause()
        self.bus.give_up()
        states = self.bus.save()
        data = DEVICES.write(states)
        self.bus.close()
        cursor = Cursor(data)
        came = DEVICES.read(cursor)
        cursor.finish()
        assert came == states
        self.attach()
        self.bus.load(came)
        assert self.bus.save() == states
        self.bus.resume()
        self.moves += 1

    def send(self) -> None:
        self.call(
            Hcall.SEND_LOGICAL_LAN,
            CARD,
            *(self.descriptor() for _ in range(6)),
            self.chance.choice((0, 0, 1)),
        )

    def anything(self) -> None:
        unit = self.chance.choice((DISK, CARD, DISK | 1 << 31, CARD | 1 << 31, self.number()))
        self.call(self.chance.choice(list(HANDLERS)), unit, *(self.number() for _ in range(8)))

    def scribble(self) -> None:
        at = self.chance.randrange(MAPPED - 64)
        self.memory.write(at, self.chance.randbytes(64))

    def run(self, steps: int) -> None:
        acts: Sequence[Callable[[], None]] = (
            *(self.map, self.map, self.queue, *[self.request] * 5, self.management),
            *(self.lan, self.send, self.anything, self.anything, self.scribble),
            *(self.pools, self.frames, self.take_back, self.overflow, self.send_large, self.move),
        )
        for _ in range(steps):
            self.chance.choice(acts)()
            assert self.disk._worker.unfinished <= 132
            receiver = self.card._receiver
            assert len(receiver._buffers) <= MOST_BUFFERS
            # Once so much waits, nothing more is read from the other end.
            assert receiver._waiting_size <= MOST_WAITING

    def check(self) -> None:
        """The devices go on after all of that, and nothing was written that the guest had not mapped."""
        self.bus.pause()
        for page in range(MAPPED, SIZE, 4096):
            assert self.memory.read(page, 4096) == BEHIND
        assert os.path.getsize(self.disk.file.path) == SECTORS * 512
        self.bus.reset()
        self.bus.resume()
        self.begin()
        self.memory.write(0x2000, unit(read_16(0, 1), [(0x3000, 512)], (), LUN).ljust(256, b"\0"))
        assert self.call(Hcall.SEND_CRQ, DISK, 0x8001_0000_0000_0100, 0x2000) == Status.SUCCESS
        self.bus.pause()
        assert self.memory.read(0x1000, 4) == b"\x80\x01\0\0"
        assert self.memory.read(0x2000 + 19, 1) == b"\0"
        self.bus.save()
        self.bus.close()


MOST_WAITING = (4 << 20) + 100 * LARGEST_FRAME
"""Bytes of frames that wait for buffers, and what came last."""


def campaign(directory: Path, seeds: Sequence[int], steps: int) -> tuple[int, int]:
    """Send rubbish to devices in so many steps of each seed; how many moves and large frames there were."""
    path, broken = directory / "disk", list[threading.ExceptHookArgs]()
    path.write_bytes(random.Random(1).randbytes(512 * SECTORS))
    moves = merged = 0
    with mock.patch.object(threading, "excepthook", broken.append):
        for seed in seeds:
            rubbish = Rubbish(path, seed, threaded=seed % 4 == 0)
            rubbish.run(steps)
            rubbish.check()
            # What each host's user is told is told once, however often it happens.
            assert len(rubbish.troubles) <= 4 * (1 + rubbish.moves), seed
            moves += rubbish.moves
            merged += rubbish.merged
    assert not broken
    return moves, merged


def test_rubbish(tmp_path: Path) -> None:
    moves, merged = campaign(tmp_path, range(12), 100)
    assert moves > 10
    # How many come at a time is up to threads.
    assert merged > 0
