"""Segments that a network card merges: who cuts the large frames again has what came."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
from test_network import MAC, Card, Wire

from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.dma_window import DmaWindow
from chronovisor.machine.vio.lan_receiver import ReceiveQueue, Receiver
from chronovisor.memory import GuestMemory
from chronovisor.memory.word_queue import WordQueue
from chronovisor.papr.hcalls import Status
from chronovisor.papr.logical_lan import CAPABILITIES, CHANGEABLE, CHECKSUMS, Attribute

ENTRIES = 2048
ACK, PUSH, FIN = 0x10, 0x08, 0x01
TCP, UDP = 6, 17
TIMES = b"\x01\x01\x08\x0atimeecho"
"""An option of TCP, filled up."""


def folded(data: bytes) -> int:
    """The sum of 16-bit words as the Internet's checksums have it."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Packet:
    """A frame, taken apart."""

    source: bytes = b"source"
    version: int = 4
    protocol: int = TCP
    cut: int = 0x4000
    label: int = 0
    lifetime: int = 64
    port: int = 80
    number: int = 0
    acknowledged: int = 7
    flags: int = ACK
    window: int = 500
    options: bytes = b""
    data: bytes = b""
    filling: bytes = b""

    def frame(self) -> bytes:
        head = struct.pack(
            ">HHIIBBHHH",
            *(self.port, 2000, self.number & 0xFFFF_FFFF, self.acknowledged),
            *(0x50 + 4 * len(self.options), self.flags, self.window, 0x1234, 0),
        )
        payload = head + self.options + self.data
        if self.version == 4:
            size = 20 + len(payload)
            first = struct.pack(
                ">BBHHHBBH4s4s",
                0x45,
                self.label,
                size,
                77,
                self.cut,
                self.lifetime,
                self.protocol,
                0,
                b"addr",
                b"ess!",
            )
            kind, ip = 0x0800, first[:10] + struct.pack(">H", 0xFFFF - folded(first)) + first[12:]
        else:
            kind = 0x86DD
            ip = struct.pack(
                ">IHBB16s16s",
                *(6 << 28 | self.label, len(payload), self.protocol, self.lifetime, b"a" * 16, b"b" * 16),
            )
        return MAC + self.source + struct.pack(">H", kind) + ip + payload + self.filling


class Came(NamedTuple):
    """What the guest finds of a frame."""

    segment: int
    """0 if it is not large."""
    checked: bool
    frame: bytes


class Driver:
    """Uses a receiver as a guest's driver does, whose memory is its I/O addresses."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.memory = GuestMemory(1 << 24)
        window = DmaWindow(self.memory, lambda *_: None)
        assert window.put(0, [page | 3 for page in range(0, self.memory.size, 4096)])
        self.receiver = Receiver(self.memory, window, WordQueue(), lambda: None)
        self.receiver.going = self.receiver.checked = self.receiver.merges = True
        self.receiver.queue = ReceiveQueue(0, ENTRIES * 16, 0, True)
        self._next, self._toggle, self._at = 0, 1, 0x1_0000
        for size in sizes:
            self.give(size)

    def give(self, size: int) -> None:
        self.memory.write(self._at, struct.pack("<QQ", self._at, size))
        assert self.receiver.add(1 << 63 | size << 32 | self._at)
        # Not at the beginning of a page.
        self._at = 0x1_0000 + (self._at + size + 12) % 0xEE_0000

    def take(self) -> Iterator[Came]:
        """The frames that are there; each buffer is handed over again."""
        while True:
            flags, size, correlator = struct.unpack(">II8s", self.memory.read(16 * self._next, 16))
            if flags >> 31 != self._toggle:
                return
            self._next = (self._next + 1) % ENTRIES
            self._toggle ^= self._next == 0
            (buffer,) = struct.unpack("<Q", correlator)
            large, begin = bool(flags & 0x0400_0000), flags & 0xFFFF
            assert begin == (16 if large else 8)
            segment = struct.unpack(">Q", self.memory.read(buffer + 8, 8))[0] if large else 0
            yield Came(segment, bool(flags & 0x0100_0000), self.memory.read(buffer + begin, size))


def cut(came: Came, version: int) -> list[tuple[int, bytes]]:
    """The numbers and the data of the segments of a large frame, whose headers are checked."""
    frame = came.frame
    if version == 4:
        assert folded(frame[14:34]) == 0xFFFF
        assert struct.unpack(">H", frame[16:18])[0] == len(frame) - 14
        tcp = 34
    else:
        assert struct.unpack(">H", frame[18:20])[0] == len(frame) - 54
        tcp = 54
    number, size = struct.unpack(">I", frame[tcp + 4 : tcp + 8])[0], (frame[tcp + 12] >> 4) * 4
    assert frame[tcp + 16 : tcp + 18] == bytes(2)
    data = frame[tcp + size :]
    return [
        ((number + at) & 0xFFFF_FFFF, data[at : at + came.segment])
        for at in range(0, len(data), came.segment)
    ]


def stream(chance: random.Random) -> list[Packet]:
    """Packets of some connections, in which now and then something is unusual."""
    packets: list[Packet] = []
    for _ in range(chance.randint(1, 6)):
        full = chance.choice((1, 10, 536, 1448, 1460, 9000))
        packet = Packet(
            version=chance.choice((4, 6)),
            port=chance.choice((80, 81)),
            number=chance.choice((5, 0xFFFF_FFF0, 1 << 31)),
            options=chance.choice((b"", TIMES)),
        )
        if chance.random() < 0.3:
            packet = unusual(chance, packet)
        packets += row(chance, packet, full)
    return packets


def row(chance: random.Random, packet: Packet, full: int) -> Iterator[Packet]:
    for _ in range(chance.choice((1, 2, 5, 30))):
        size = full if chance.random() < 0.9 else chance.choice((0, chance.randint(0, full)))
        flags = packet.flags & ~PUSH | chance.choice((0, 0, 0, PUSH))
        packet = replace(packet, data=chance.randbytes(size), flags=flags)
        yield unusual(chance, packet) if chance.random() < 0.05 else packet
        packet = replace(packet, number=packet.number + size + (chance.random() < 0.02))


def unusual(chance: random.Random, packet: Packet) -> Packet:
    changes: tuple[dict[str, Any], ...] = (
        {"source": b"others"},
        {"protocol": UDP},
        *([{"cut": 0x2000}, {"cut": 5}] if packet.version == 4 else []),
        {"label": 2},
        {"lifetime": 63},
        {"acknowledged": 8},
        {"flags": ACK | FIN},
        {"flags": 0},
        {"flags": ACK | 0x20},
        {"window": 501},
        {"options": b"\x01" * 4},
        {"options": packet.options[::-1]},
        {"filling": b"fill"},
    )
    return replace(packet, **chance.choice(changes))


def numbers(packet: Packet) -> tuple[int, bytes]:
    return packet.number & 0xFFFF_FFFF, packet.data


POOLS = ([512] * 300 + [2048] * 300 + [0x1_0000] * 60, [2048] * 400, [512] * 200 + [0x4000] * 300)


@pytest.mark.parametrize("seed", range(60))
def test_who_cuts_large_frames_again_has_what_came(seed: int) -> None:
    chance = random.Random(seed)
    driver = Driver(POOLS[seed % len(POOLS)])
    packets = [packet for packet in stream(chance) if len(packet.frame()) < 2000]
    driver.receiver.hand_over([memoryview(packet.frame()) for packet in packets])
    at = 0
    for came in driver.take():
        assert came.checked
        if not came.segment:
            assert came.frame == packets[at].frame()
            at += 1
            continue
        parts = cut(came, packets[at].version)
        merged = packets[at : at + len(parts)]
        assert [numbers(packet) for packet in merged] == parts
        first = merged[0]
        assert first.cut in (0, 0x4000)
        for packet in merged:
            same = {name: getattr(first, name) for name in ("number", "data", "flags")}
            assert replace(packet, **same) == first
            assert packet.flags in (ACK, ACK | PUSH)
            assert not packet.filling
        pushed = came.frame[47 if first.version == 4 else 67] == ACK | PUSH
        assert pushed == any(packet.flags & PUSH for packet in merged)
        at += len(parts)
    assert at == len(packets)


def segments(count: int, size: int, first: int = 0, **more: Any) -> list[memoryview]:
    packets = (Packet(number=first + at * size, data=bytes([at % 251]) * size, **more) for at in range(count))
    return [memoryview(packet.frame()) for packet in packets]


@pytest.mark.parametrize("version", [4, 6])
def test_large_frames_fill_the_largest_buffers(version: int) -> None:
    driver = Driver(POOLS[0])
    driver.receiver.hand_over(segments(200, 1448, version=version))
    sizes = [len(cut(came, version)) for came in driver.take()]
    # 45 segments, with their header, are less than 64 KiB.
    assert sizes == [45, 45, 45, 45, 20]


def test_numbers_start_again_from_0_and_a_packet_has_an_end() -> None:
    driver = Driver([0x2_0000] * 3)
    driver.receiver.hand_over(segments(90, 1448, first=(1 << 32) - 5000))
    assert [len(cut(came, 4)) for came in driver.take()] == [45, 45]


def test_a_header_that_is_too_short_for_one_is_left_alone() -> None:
    driver = Driver(POOLS[0])
    frames = []
    for number, frame in enumerate(segments(50, 1000)):
        data = bytearray(frame)
        # As if the last 4 bytes of the header were data.
        data[46] = 0x40
        data[38:42] = struct.pack(">I", 1004 * number)
        frames.append(memoryview(data))
    driver.receiver.hand_over(frames)
    assert [came.frame for came in driver.take()] == frames


@pytest.mark.parametrize(
    "special",
    [{"cut": 0x2000}, {"cut": 9}, {"protocol": UDP}, {"flags": 0}, {"flags": ACK | FIN}, {"filling": b"x"}],
)
def test_special_packets_are_left_alone(special: dict[str, Any]) -> None:
    driver = Driver(POOLS[0])
    frames = segments(50, 1000, **special)
    driver.receiver.hand_over(frames)
    assert [came.frame for came in driver.take()] == frames


def test_tiny_segments_become_frames_for_small_buffers() -> None:
    driver = Driver(POOLS[0])
    driver.receiver.hand_over(segments(300, 10))
    found = [(len(cut(came, 4)) if came.segment else 1) for came in driver.take()]
    assert found == [197, 103]


def test_a_few_segments_do_not_take_a_large_buffer() -> None:
    driver = Driver(POOLS[0])
    driver.receiver.hand_over(segments(5, 1448))
    assert [came.segment for came in driver.take()] == [0] * 5
    # They are the whole of a quarter of one.
    driver.receiver.hand_over(segments(12, 1448))
    assert [came.segment for came in driver.take()] == [1448]


def test_segments_that_waited_for_buffers_are_merged() -> None:
    driver = Driver([])
    for at in range(0, 90, 9):
        driver.receiver.hand_over(segments(90, 1448)[at : at + 9])
    assert list(driver.take()) == []
    driver.give(0x1_0000)
    driver.give(0x1_0000)
    driver.receiver.hand_over()
    assert [len(cut(came, 4)) for came in driver.take()] == [45, 45]
    assert not driver.receiver.waits


def test_what_was_not_asked_for_does_not_come() -> None:
    driver = Driver(POOLS[0])
    driver.receiver.merges = driver.receiver.checked = False
    frames = segments(50, 1448)
    driver.receiver.hand_over(frames)
    assert list(driver.take()) == [Came(0, False, bytes(frame)) for frame in frames]


@pytest.mark.parametrize("seed", range(30))
def test_rubbish_is_handed_over_as_it_is(seed: int) -> None:
    """Frames that are cut off, or of which bytes were changed."""
    chance = random.Random(seed)
    driver = Driver(POOLS[0])
    frames = []
    for frame in segments(100, chance.choice((1, 100)), version=chance.choice((4, 6))):
        data = bytearray(frame)
        for _ in range(chance.randint(0, 3)):
            data[chance.randrange(len(data))] = chance.getrandbits(8)
        frames.append(memoryview(data)[: chance.choice((14, 40, 54, 55, 74, 75, 999))])
    driver.receiver.hand_over(frames)
    found = list(driver.take())
    assert sum(len(frame) for frame in frames) >= sum(len(came.frame) for came in found) > 0
    assert not driver.receiver.waits


def test_a_card_is_asked_before_it_merges() -> None:
    wire = Wire()
    wire.in_memory = True
    card = Card(wire)
    receiver = card.adapter._receiver
    assert "ibm,illan-options" in card.adapter.properties()
    assert card.adapter.change_attributes(0, 0) == CAPABILITIES
    assert card.adapter.change_attributes(0, Attribute.LARGE) == CAPABILITIES | Attribute.LARGE
    # Without checksums nothing can be merged.
    assert not receiver.merges
    assert card.adapter.change_attributes(0, ~0) == CAPABILITIES | CHANGEABLE
    assert receiver.merges
    assert receiver.checked
    # A driver sets them once, before it opens the card for the first time.
    assert card.register() == card.adapter.free() == Status.SUCCESS
    assert card.adapter.change_attributes(Attribute.LARGE, 0) == CAPABILITIES | CHECKSUMS
    assert not receiver.merges
    assert receiver.checked
    card.adapter.reset()
    assert not receiver.checked
    card.adapter.close()


def test_a_tap_device_has_no_large_frames() -> None:
    card = Card()
    assert "ibm,illan-options" not in card.adapter.properties()
    assert card.adapter.change_attributes(0, CHANGEABLE) == 0
    assert not card.adapter._receiver.checked
    state = card.adapter.save()
    with pytest.raises(MachineError, match="tap device"):
        card.adapter.load(replace(state, attributes=CHECKSUMS))
    wire = Wire()
    wire.in_memory = True
    other = Card(wire)
    with pytest.raises(ValueError, match="no sense"):
        other.adapter.load(replace(state, attributes=1))
    other.adapter.load(replace(state, attributes=CHANGEABLE))
    assert other.adapter._receiver.merges
    assert other.adapter.save().attributes == CHANGEABLE
    for one in (card, other):
        one.adapter.close()
