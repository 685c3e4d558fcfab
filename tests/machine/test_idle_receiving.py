"""Frames that an idle vCPU puts into buffers itself, against those that the card's thread does."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from elf_files import program

from chronovisor.engine.native.library import library
from chronovisor.hypervisor import virtual_cpu
from chronovisor.isa.assembly import assemble
from chronovisor.machine import Host
from chronovisor.machine.guest import Guest
from chronovisor.machine.network import LARGEST_FRAME, Link, NetworkOption, Passt
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.lan import NetworkAdapter
from chronovisor.machine.vio.lan_buffers import Descriptor
from chronovisor.machine.vio.lan_receiver import Receiver
from chronovisor.memory.gate import Place
from chronovisor.memory.word_queue import FIRST, LIMIT, PLACES, TAIL
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.timebase.types import Ticks

MEMORY = 16 << 20
LIST, FILTERS, QUEUE, MAILBOX, DATA, END = 0x100000, 0x101000, 0x102000, 0x104000, 0x200000, 0xF00000
ENTRIES = 48
VALID = 1 << 63
MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400123457")
EVERYBODY = b"\xff" * 6
SIZES = (300, 4104, 0x10100)
"""Of the buffers."""
BUFFERS = 24
"""Of each size."""
LONG = Ticks.from_ns(900_000_000).value
"""A nap that lasts until the guest's decrementer ends it."""
FRAMES = 500

SOON = "li32 r3, 0x0A000000; mtdec r3;"
"""So that it is idle for a third of a second at a time."""
IDLE = f"{SOON} li r3, 0x68; li r4, 0xff; sc 1\nagain: li r3, 0xe0; sc 1; b again\n"
HANDLER = f"""
    li r3, {Hcall.XIRR:#x}; sc 1
    li r3, {Hcall.EOI:#x}; sc 1
    li32 r10, {MAILBOX}; ld r4, 0(r10); ld r5, 8(r10); cmpldi r5, 0; beq out
    li r3, {Hcall.ADD_LOGICAL_LAN_BUFFER:#x}; sc 1
    std r3, 16(r10); li r5, 0; std r5, 8(r10)
    out: rfid
"""
"""Hands a card the buffer that is in the mailbox, behind the card's unit address."""


class _Wire(Passt):
    """passt's protocol, and the test at its other end."""

    def __init__(self) -> None:
        self._socket, self.other = socket.socketpair()
        self._socket.setblocking(False)
        Link.__init__(self, self._socket.fileno())
        self._received = memoryview(bytearray((1 << 18) + 4 + LARGEST_FRAME))
        self._begin = self._end = 0
        self._unsent = b""

    def close(self) -> None:
        Link.close(self)
        self._socket.close()
        self.other.close()

    def await_taken(self) -> None:
        """Wait until everything that was sent has been received."""
        end = time.monotonic() + 60
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(1, socket.MSG_PEEK):
                assert time.monotonic() < end, "a frame was never received"
                time.sleep(0)

    def _how_it_ended(self, reason: str) -> str:
        return f"the wire was cut: {reason}"


class _Driver:
    """Drives the card of a guest that is idle, as Linux does."""

    def __init__(self, guest: Guest, wire: _Wire, native: bool) -> None:
        self.native = native
        (card,) = guest.platform.vio.devices
        assert isinstance(card, NetworkAdapter)
        self.card, self.memory, self.wire = card, guest.memory, wire
        self._next, self._toggle, self._place = 0, 1, DATA
        self.sizes: dict[int, int] = {}
        """Of the buffers, by their addresses."""
        assert card.window.put(0, [page | 3 for page in range(0, MEMORY, 4096)])
        card.signals = True
        guest.platform.interrupts.direct(card.source, 0, 5)
        queue = VALID | (16 * ENTRIES) << 32 | QUEUE
        assert card.register(LIST, queue, FILTERS, int.from_bytes(MAC, "big")) == Status.SUCCESS

    def add(self, size: int) -> None:
        """Hand over a buffer, by a call or without one."""
        at, word, given = *self._buffer(size), self.card._receiver._given._words
        if given[TAIL] < given[LIMIT] and at & 4:
            tail = given[TAIL]
            given[TAIL] = tail + 1
            given[FIRST + tail % PLACES] = word
        else:
            assert self.card.add_buffer(word) == Status.SUCCESS

    def post(self, size: int) -> None:
        """Leave a buffer that the guest hands over as soon as it is interrupted."""
        self.memory.write(MAILBOX, struct.pack(">QQq", self.card.unit, self._buffer(size)[1], -1))

    def await_post(self) -> None:
        """Wait until the guest has done so."""
        end = time.monotonic() + 60
        while any(self.memory.read(MAILBOX + 8, 8)):
            assert time.monotonic() < end, "the guest never handed the buffer over"
            time.sleep(0)
        assert self.memory.read(MAILBOX + 16, 8) == bytes(8)

    def _buffer(self, size: int) -> tuple[int, int]:
        """The address and the descriptor of another buffer."""
        at = self._place
        self._place = DATA if at + 2 * 0x10100 > END else at + size + 44 & ~3
        self.memory.write(at, struct.pack("<Q", at))
        self.sizes[at] = size
        return at, VALID | size << 32 | at

    def await_listener(self) -> None:
        """Give the vCPU time to be idle: more than its decrementer does. If it executes nothing natively, it
        never waits for frames.
        """
        end = time.monotonic() + (0.5 if self.native else 0)
        while not self.card._idle.words[Place.LISTENER] and time.monotonic() < end:
            time.sleep(0)

    def buffer(self) -> tuple[int, int]:
        """Take the next entry: the buffer's address, and the frame's size."""
        end = time.monotonic() + 60
        at = QUEUE + 16 * self._next
        while True:
            flags, size, correlator = struct.unpack(">II8s", self.memory.read(at, 16))
            if flags >> 31 == self._toggle:
                break
            assert time.monotonic() < end, "the frame never came"
            time.sleep(0)
        assert flags & 0x7FFF_FFFF == 0x4000_0008
        self._next = (self._next + 1) % ENTRIES
        self._toggle ^= self._next == 0
        return struct.unpack("<Q", correlator)[0], size

    def frame(self) -> bytes:
        """Take the next frame, and hand over another buffer of its buffer's size."""
        buffer, size = self.buffer()
        room = self.sizes.pop(buffer)
        assert room == min(one for one in SIZES if one >= size + 8)
        found = self.memory.read(buffer + 8, size)
        self.add(room)
        return found


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> _Wire:
    library((True, True)).ensure()
    wire = _Wire()
    monkeypatch.setattr(NetworkOption, "open", lambda _option: wire)
    return wire


@contextmanager
def _idle_guest(wire: _Wire, engine: str) -> Iterator[_Driver]:
    with Host(engine=engine) as host:
        host.attachments = Attachments((), NetworkOption(tap="lo"))
        guest = host.boot(program(IDLE), "16M")
        guest.memory.write(0x500, assemble(HANDLER, 0x500, False))
        guest.memory.write(0x900, assemble(f"{SOON} rfid", 0x900, False))
        driver = _Driver(guest, wire, engine != "concrete")
        for size in SIZES:
            for _ in range(BUFFERS):
                driver.add(size)
        runs = threading.Thread(target=guest.run, args=(300,), daemon=True)
        runs.start()
        yield driver
        guest.stop()
        runs.join(60)
        assert not runs.is_alive()


def _count_native(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames idle vCPUs have received, each time that the card looks."""
    counts: list[int] = []
    take_back = Receiver.take_back

    def counted(self: Receiver, words: memoryview) -> None:
        if words[Place.LENT]:
            counts.append(words[Place.USED])
        take_back(self, words)

    monkeypatch.setattr(Receiver, "take_back", counted)
    return counts


@pytest.mark.parametrize("engine", ["concrete", "threaded"])
def test_frames_come_whoever_receives_them(engine: str, wire: _Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones and long ones, alone and in bursts, in pieces, for others, and with no sense."""
    draw, natively = random.Random(7), _count_native(monkeypatch)
    monkeypatch.setattr(virtual_cpu, "MOST_NAP", LONG)
    with _idle_guest(wire, engine) as driver:
        sent = 0
        # On a busy machine the card's thread receives more of them: then more are sent.
        while sent < FRAMES or (driver.native and sum(natively) <= FRAMES // 8 and sent < 9 * FRAMES):
            burst: list[bytes] = []
            expected: list[bytes] = []
            for _ in range(draw.choice((1, 1, 1, 1, 2, 5))):
                size = draw.choice((14, 54, 60, 60, 292, 293, 1514, 4096, 4097, 30000, 13, 0))
                to = draw.choice((MAC, MAC, MAC, EVERYBODY, OTHER))
                frame = (to + draw.randbytes(size))[:size]
                burst.append(struct.pack(">I", size) + frame)
                sent += 1
                if size >= 14 and to != OTHER:
                    expected.append(frame)
            whole = b"".join(burst)
            cut = draw.randrange(len(whole) + 1) if draw.random() < 0.2 else len(whole)
            if draw.random() < 0.8:
                driver.await_listener()
            wire.other.sendall(whole[:cut])
            if cut < len(whole):
                time.sleep(draw.choice((0, 0.002)))
                wire.other.sendall(whole[cut:])
            for frame in expected:
                assert driver.frame() == frame
    received = sum(natively)
    print(f"{received} of {sent} frames came natively")
    assert received == 0 if engine == "concrete" else received > FRAMES // 8


def test_nothing_is_written_where_the_guest_lets_nobody_write(
    wire: _Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers and a queue that are mapped nowhere, for reading alone, or in two places."""
    draw, natively = random.Random(8), _count_native(monkeypatch)
    monkeypatch.setattr(virtual_cpu, "MOST_NAP", LONG)
    with _idle_guest(wire, "threaded") as driver:
        card, memory = driver.card, driver.memory
        safe = range(0xF00000, MEMORY, 4096)
        before = memory.read(safe.start, len(safe) * 4096)
        for number in range(120):
            pages = range(DATA, DATA + 0x20000, 4096) if number % 6 != 5 else range(QUEUE, QUEUE + 4096, 4096)
            # With all as it should be every other time, idle vCPUs do receive.
            for page in pages if number % 2 else ():
                where = draw.choice(safe)
                assert card.window.put(page, [draw.choice((0, where | 1, where | 1, 1 << 40 | 3))])
            size = draw.choice((54, 60, 292))
            driver.await_listener()
            wire.other.sendall(struct.pack(">I", size) + MAC + draw.randbytes(size - 6))
            if number % 2:
                driver.await_listener()
            else:
                wire.await_taken()
            for page in pages:
                assert card.window.put(page, [page | 3])
            for _ in range(3):
                card.add_buffer(VALID | SIZES[0] << 32 | DATA + 320 * draw.randrange(400))
        assert memory.read(safe.start, len(safe) * 4096) == before
    print(f"{sum(natively)} of 120 frames came natively")
    assert sum(natively) > 0


def test_buffers_are_used_once_and_in_their_order(wire: _Wire) -> None:
    with _idle_guest(wire, "threaded") as driver:
        in_order = [at for at, size in driver.sizes.items() if size == SIZES[0]]
        used = []
        for _ in range(len(in_order) + 3):
            driver.await_listener()
            wire.other.sendall(struct.pack(">I", 60) + MAC + bytes(54))
            used.append(driver.buffer()[0])
        assert used[: len(in_order)] == in_order
        assert [driver.sizes[at] for at in used[len(in_order) :]] == [SIZES[1]] * 3


def test_buffers_of_the_guests_take_the_place_of_used_ones(
    wire: _Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So idle vCPUs receive more frames than they were lent buffers for, before the card looks again."""
    monkeypatch.setattr(virtual_cpu, "MOST_NAP", LONG)
    with _idle_guest(wire, "threaded") as driver:
        words, posted = driver.card._idle.words, (SIZES[0],) * 7 + (SIZES[1],)
        number = longest = 0
        # On a busy machine the card's thread may receive some. Then it lends anew.
        while longest <= 2 * BUFFERS:
            driver.post(posted[number % len(posted)])
            frame = MAC + number.to_bytes(54, "big")
            driver.await_listener()
            wire.other.sendall(struct.pack(">I", len(frame)) + frame)
            buffer, size = driver.buffer()
            # The buffer has the size that is lent, and no frame was put into it before.
            assert driver.sizes.pop(buffer) == SIZES[0]
            assert driver.memory.read(buffer + 8, size) == frame
            driver.await_post()
            number, longest = number + 1, max(longest, words[Place.USED])
            assert number < len(posted) * BUFFERS, "buffers took no place of used ones"
        with driver.card._receiving() as receiver:
            # None is lost: those that are left are all that were not used.
            left = sorted(Descriptor.of(word).address for word in receiver.buffers())
        assert left == sorted(driver.sizes)


def test_the_cards_thread_is_told_of_frames_at_once_if_no_buffer_is_lent_any_more(
    wire: _Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this test is, it is the vCPU that receives the frames: nobody else does.
    monkeypatch.setattr(virtual_cpu, "MOST_NAP", LONG)
    may_go_on = threading.Event()
    await_frames = wire.await_frames

    def held_up(seconds: float | None = None) -> bool:
        found = await_frames(seconds)
        may_go_on.wait(60)
        return found

    wire.await_frames = held_up  # type: ignore[method-assign]
    try:
        with _idle_guest(wire, "threaded") as driver:
            words, end = driver.card._idle.words, time.monotonic() + 60
            while not words[Place.LISTENER]:
                assert time.monotonic() < end, "no vCPU waits for frames"
                time.sleep(0)
            assert words[Place.LENT] == BUFFERS
            for _ in range(BUFFERS):
                wire.other.sendall(struct.pack(">I", 60) + MAC + bytes(54))
                driver.buffer()
            while words[Place.LISTENER]:
                assert time.monotonic() < end, "a vCPU waits that has no buffer"
            assert words[Place.USED] == BUFFERS
            assert words[Place.WATCHED]
            may_go_on.set()
            wire.other.sendall(struct.pack(">I", 60) + MAC + bytes(54))
            assert driver.sizes[driver.buffer()[0]] == SIZES[1]
    finally:
        may_go_on.set()


def test_the_wire_is_cut_while_a_vcpu_waits_for_frames(wire: _Wire) -> None:
    """Nobody waits by it any more, and the guest goes on."""
    with _idle_guest(wire, "threaded") as driver:
        wire.other.sendall(struct.pack(">I", 60) + MAC + bytes(54))
        driver.frame()
        wire.other.shutdown(socket.SHUT_WR)
        card, words, end = driver.card, driver.card._idle.words, time.monotonic() + 60
        while card._up or words[Place.OPEN] or words[Place.LISTENER]:
            assert time.monotonic() < end, "somebody still waits"
            time.sleep(0.001)
