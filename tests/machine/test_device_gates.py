"""What hypercalls do for devices whose gates are open, against what Python does for the same guest."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from elf_files import POWER_OFF, program
from vio_driver import LUN, read_16, unit

from chronovisor.engine.native.library import library
from chronovisor.isa.assembly import assemble
from chronovisor.machine import Host
from chronovisor.machine.ending import EndReason
from chronovisor.machine.network import Link, NetworkOption
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.crq import Queue
from chronovisor.machine.vio.lan import NetworkAdapter
from chronovisor.machine.vio.vscsi import DiskAdapter
from chronovisor.memory.gate import Place
from chronovisor.papr.hcalls import Hcall, Status

SECTORS = 64
MEMORY = 4 << 20
TABLE, UNITS, QUEUE, DATA, FUNCTION = 0x100000, 0x120000, 0x140000, 0x150000, 0x170000
END = 0x180000
PLACES = 256
"""Of the queue."""
REQUESTS = 200
"""Fewer than that: the queue is never read here."""


@pytest.fixture(scope="module", autouse=True)
def _handlers() -> None:
    """Native code alone serves devices."""
    library((True, True)).ensure()


_CALL = """
    li32 r20, {table}
    li32 r21, {count}
    li32 r22, {function}
    li r3, 0x68; li r4, 0xff; sc 1
    again: li r3, {number}; li32 r4, {unit}
    {arguments}
    sc 1; std r3, 0(r20)
    li r3, 0x74; sc 1; std r4, 8(r20)
    li r3, 0x64; sc 1
    mtctr r22; bctrl; std r5, 16(r20)
    addi r20, r20, 64
    addi r21, r21, -1; cmpldi r21, 0; bne again
"""
"""Makes a call with the arguments of each of the table's rows, accepts and ends the interrupt, and calls a
function. It leaves in the row what the call returned, the interrupt, and what the function returned.
"""


def _row(number: int, device: int, arguments: str) -> str:
    return _CALL.format(
        table=TABLE, count=REQUESTS, function=FUNCTION, number=int(number), unit=device, arguments=arguments
    )


def _functions(size: int, draw: random.Random) -> bytes:
    """Functions side by side, each of two instructions."""
    load, back = struct.unpack("<II", assemble("li r5, 0; blr", 0, True))
    return b"".join(struct.pack("<II", load | draw.randrange(30000), back) for _ in range(size // 8))


def _commands(draw: random.Random, first_place: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Requests, in units and messages: most in order, others nearly so."""
    for number in range(REQUESTS):
        at = UNITS + 256 * number
        first, count = draw.randrange(SECTORS), draw.choice((*[1, 2, 8] * 4, 9, 0))
        where = draw.choice((*[DATA] * 8, DATA + 0x3000, at)) + 8 * draw.randrange(512)
        if draw.random() < 0.15:
            where = FUNCTION
        if where < DATA:
            # A queue with data in it takes nothing more.
            queue = QUEUE + 16 * ((first_place + number * 3 // 4) % PLACES)
            where = queue if number > REQUESTS * 0.8 else draw.choice((at, END, MEMORY - 512))
        over = draw.random()
        if over < 0.16:
            # Data that is read over its own unit: over the unit's end, or over its beginning.
            where, count = at + 8 * draw.randrange(8) - (504 if over < 0.08 else 0), 1
        size = 512 * count if draw.random() < 0.9 else draw.choice((0, 511, 4096, 1 << 31))
        lun = LUN if draw.random() < 0.95 else 0x8001 << 48
        form = draw.random()
        flags = draw.choice((*[0] * 9, 8))
        if form < 0.1:
            one = unit(read_16(first, count), [(where, size)], (), lun)
        elif form < 0.15:
            one = unit(
                _ten(0x28, first, count), [(where, size // 2), (where + size // 2, size // 2)], (), lun
            )
        elif form < 0.6:
            one = unit(_ten(0x28, first, count), [(where, size)], (), lun)
        else:
            # The disk has functions alone.
            where = where & ~7 if DATA <= where < FUNCTION else FUNCTION
            one = unit(_ten(0x2A, first, count, flags), (), [(where, size)], lun)
        whole = bytearray(one.ljust(256, b"\0"))
        if draw.random() < 0.1:
            # Not in the address's last byte: functions lie at multiples of 8 bytes everywhere.
            whole[draw.choice([*range(55), *range(56, 64)])] ^= 1 << draw.randrange(8)
        length = draw.choice((256, 256, 256, 64, 63))
        yield bytes(whole), struct.unpack(">QQ", struct.pack(">BBxxHHQ", 0x80, 1, 0, length, at))


def _ten(operation: int, first: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", operation, flags, first, count)


def _run_disk(
    engine: str, path: Path, seed: int, places: int | None = None, masked: bool = False
) -> tuple[bytes, bytes, Queue, int]:
    """What a guest's requests leave in its memory, on the disk and of the queue, and how many calls left the
    guest. What has changed in memory is in the dirty log. The queue is full behind so many `places`.
    """
    draw = random.Random(seed)
    path.write_bytes(_functions(512 * SECTORS, draw))
    with Host(engine=engine) as host:
        host.attachments = Attachments.parse([str(path)])
        arguments = "ld r5, 32(r20); ld r6, 40(r20)"
        guest = host.boot(program(_row(Hcall.SEND_CRQ, 0x7100_0010, arguments) + POWER_OFF), "4M")
        (disk,) = guest.platform.vio.devices
        assert isinstance(disk, DiskAdapter)
        guest.memory.write(DATA, _functions(END - DATA, draw))
        entries = [page | 3 for page in range(0, MEMORY, 4096)]
        # Pages that are not side by side, or that the device may not use so.
        entries[(DATA >> 12) + 4], entries[(DATA >> 12) + 5] = DATA | 0x6003, DATA | 0x4001
        assert disk.window.put(0, entries)
        assert disk.register_queue(QUEUE, 16 * PLACES) == Status.SUCCESS
        # The queue goes round once.
        begin = 0 if places is not None else PLACES - 20
        disk._queue.queue = Queue(QUEUE, 16 * PLACES, 16 * begin)
        disk.signals = True
        # Whoever serves a request does so within its call.
        disk._worker._threaded = False
        guest.platform.interrupts.direct(disk.source, 0, 5)
        if masked:
            # The gate is open before there was any interrupt.
            disk.send(b"\xff".ljust(16, b"\0"))
            guest.platform.interrupts.mask(disk.source, True)
        for number, (whole, message) in enumerate(_commands(draw, begin)):
            guest.memory.write(UNITS + 256 * number, whole)
            guest.memory.write(TABLE + 64 * number + 32, struct.pack("<QQ", *message))
        if places is not None:
            guest.memory.write(QUEUE + 16 * places, b"\x80".ljust(16, b"\0") * (PLACES - places))
        before = guest.memory.read(TABLE, END - TABLE)
        guest.memory.dirty.take()
        assert guest.run(60).reason is EndReason.POWER_OFF
        logged, after = set(guest.memory.dirty.take()), guest.memory.read(TABLE, END - TABLE)
        for page in range(0, END - TABLE, 4096):
            if before[page : page + 4096] != after[page : page + 4096]:
                assert (TABLE + page) >> 12 in logged
        return after, path.read_bytes(), disk.save().queue, guest.exits["H_SEND_CRQ"]


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 40))])
def test_a_disks_requests_end_alike_whoever_serves_them(seed: int, tmp_path: Path) -> None:
    here, calls = tmp_path / "disk", {}
    *expected, calls["concrete"] = _run_disk("concrete", here, seed)
    *found, calls["regions"] = _run_disk("regions", here, seed)
    assert found == expected
    assert calls["concrete"] == REQUESTS
    # A request that reads data into the queue leaves the rest to Python.
    assert calls["regions"] < REQUESTS * 0.9


def test_a_disks_interrupt_that_is_masked_does_not_come(tmp_path: Path) -> None:
    expected, found = (_run_disk(e, tmp_path / "disk", 0, masked=True) for e in ("concrete", "regions"))
    assert found[:3] == expected[:3]
    accepted = [struct.unpack_from("<Q", found[0], 64 * row + 8)[0] & 0xFF_FFFF for row in range(REQUESTS)]
    assert not any(accepted)


def test_a_disks_gate_is_open_while_no_request_waits_for_others(tmp_path: Path) -> None:
    here = tmp_path / "disk"
    here.write_bytes(bytes(512 * SECTORS))
    with Host(engine="concrete") as host:
        host.attachments = Attachments.parse([str(here)])
        guest = host.boot(program(POWER_OFF), "4M")
        (disk,) = guest.platform.vio.devices
        assert isinstance(disk, DiskAdapter)
        assert disk.window.put(0, [page | 3 for page in range(0, MEMORY, 4096)])

        def is_open_behind_a_call() -> bool:
            disk.send(b"\xff".ljust(16, b"\0"))
            return bool(disk.gate.words[Place.OPEN])

        assert not is_open_behind_a_call()
        assert disk.register_queue(QUEUE, 16 * PLACES) == Status.SUCCESS
        assert is_open_behind_a_call()
        disk.pause()
        assert not disk.gate.words[Place.OPEN]
        assert is_open_behind_a_call()
        may_end = threading.Event()
        disk._worker.give(lambda: may_end.wait(60))
        assert not is_open_behind_a_call()
        assert disk.free_queue() == Status.BUSY
        may_end.set()
        disk._worker.wait()
        assert is_open_behind_a_call()
        assert disk.free_queue() == Status.SUCCESS
        assert not disk.gate.words[Place.OPEN]
        assert not is_open_behind_a_call()


def test_a_full_queue_is_full_for_whoever_serves_a_request(tmp_path: Path) -> None:
    """Messages that the guest has not read yet are not written over."""
    here, places = tmp_path / "disk", 30
    *expected, _ = _run_disk("concrete", here, 0, places)
    *found, calls = _run_disk("regions", here, 0, places)
    assert found == expected
    assert found[2].next == 16 * places
    assert calls < REQUESTS


class _Pipe(Link):
    """The other end reads what is written to a pipe."""

    def __init__(self, prefixed: bool) -> None:
        self.reading, writing = os.pipe2(os.O_NONBLOCK)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        super().__init__(writing)
        self.prefixed = prefixed
        self.sent = 0

    def read(self) -> tuple[memoryview, ...]:
        raise AssertionError("nothing comes")

    def await_frames(self, seconds: float | None = None) -> bool:
        self.wait(seconds)
        return False

    def send(self, frame: object) -> bool:
        assert isinstance(frame, list)
        self.sent += 1
        whole = b"".join(frame)
        head = struct.pack(">I", len(whole)) if self.prefixed else b""
        return os.write(self.descriptor, head + whole) > 0

    def close(self) -> None:
        super().close()
        os.close(self.descriptor)
        os.close(self.reading)


@pytest.mark.parametrize("prefixed", [False, True])
def test_frames_are_sent_alike_whoever_sends_them(prefixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found, calls = [], []
    for engine in ("concrete", "regions"):
        wire = _Pipe(prefixed)
        monkeypatch.setattr(NetworkOption, "open", lambda _option, wire=wire: wire)
        draw = random.Random(4)
        with Host(engine=engine) as host:
            host.attachments = Attachments((), NetworkOption(tap="lo"))
            arguments = "ld r5, 32(r20); ld r6, 40(r20); ld r11, 48(r20)\n"
            arguments += "".join(f"li r{number}, 0\n" for number in range(7, 11))
            guest = host.boot(program(_row(Hcall.SEND_LOGICAL_LAN, 0x7100_0020, arguments) + POWER_OFF), "4M")
            (card,) = guest.platform.vio.devices
            assert isinstance(card, NetworkAdapter)
            assert card.window.put(0, [page | 1 for page in range(0, MEMORY - 4096, 4096)])
            guest.memory.write(DATA, draw.randbytes(END - DATA))
            guest.memory.write(FUNCTION, assemble("blr", 0, True))
            for number in range(REQUESTS):
                size = draw.choice((60, 60, 14, 13, 0, 199, 4097))
                at = draw.choice((DATA, DATA + 4090, DATA + 77, MEMORY - 4096 - 20, MEMORY - 4096))
                first = draw.choice((*[1 << 63] * 9, 0)) | size << 32 | at
                second = draw.choice((*[0] * 9, 1 << 63 | 20 << 32 | DATA))
                row = struct.pack("<QQQ", first, second, draw.choice((*[0] * 9, 7)))
                guest.memory.write(TABLE + 64 * number + 32, row)
            assert guest.run(60).reason is EndReason.POWER_OFF
            found.append((guest.memory.read(TABLE, 64 * REQUESTS), os.read(wire.reading, 1 << 20)))
            calls.append(guest.exits["H_SEND_LOGICAL_LAN"])
            # A device that is closed serves nobody.
            assert card.gate.words[Place.OPEN]
        assert not card.gate.words[Place.OPEN]
    assert found[0] == found[1]
    assert calls[0] == REQUESTS
    assert calls[1] < REQUESTS * 0.75
