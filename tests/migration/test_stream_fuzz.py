"""Streams that somebody made on purpose: a clean error, or a message; never more memory than allowed."""

from __future__ import annotations

import random
import struct
from typing import Final
from zlib import crc32

from move_streams import HEADER, MEMORY, BytesPipe, commit, filled_memory, offer, state, whole_move

from chronovisor.machine.host import Host
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.migration.destination import Destination
from chronovisor.migration.encoding import KINDS, decode, encode
from chronovisor.migration.errors import StreamError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Commit,
    Message,
    Offer,
    Query,
    Ready,
    Received,
    Refused,
    Round,
    Running,
    State,
    Unknown,
)
from chronovisor.migration.move import move
from chronovisor.migration.stream import HEAD_SIZE, HEADER_SIZE, MAXIMUM_STATE, Header, Reader
from chronovisor.timebase.clock import TickSource, VirtualTime
from chronovisor.timebase.types import Ticks

CASES: Final = 10_000
HANDLED: Final = 300
EXTREMES: Final = (0, 1, (1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 32, (1 << 32) - 1, PAGE_SIZE, MEMORY)

MESSAGES: Final[list[Message]] = [
    offer(),
    Accepted(),
    Refused("no"),
    Round(3),
    Received(),
    state(filled_memory(), []),
    Ready(),
    commit(),
    Running(Ticks(-5)),
    Aborted("a reason"),
    Query("0123abcd"),
    Unknown(),
]
WRITTEN: Final = [(next(n for n, (made, _) in KINDS.items() if made is type(m)), encode(m)) for m in MESSAGES]


def mutate(chance: random.Random, data: bytes) -> bytes:
    """Change some of it: bits, whole numbers, its length, the order of its pieces."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 1:
                size = chance.choice((1, 2, 4, 8))
                number = chance.choice(EXTREMES) & ((1 << (8 * size)) - 1)
                changed[at : at + size] = number.to_bytes(size, "big")
            case 2:
                del changed[at:]
            case 3:
                changed[at:at] = chance.randbytes(chance.randrange(1, 40))
            case 4:
                del changed[at : at + chance.randrange(1, 20)]
            case 5:
                piece = changed[at : at + chance.randrange(1, 60)]
                to = chance.randrange(len(changed) + 1)
                changed[to : to + len(piece)] = piece
            case _:
                changed[at : at + 4] = chance.randbytes(4)
    return bytes(changed)


def one_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error)


def fuzz_messages(chance: random.Random, count: int) -> int:
    """Decode changed messages; how many were still messages."""
    taken = 0
    # States are long and all registers: the others say more in the same time.
    weights = [1 if len(payload) > 2000 else 6 for _, payload in WRITTEN]
    for number, payload in chance.choices(WRITTEN, weights, k=count):
        kind = chance.choice(list(KINDS)) if chance.random() < 0.1 else number
        data = mutate(chance, payload)
        try:
            message = decode(kind, data)
        except StreamError as error:
            one_line(error)
            continue
        # Nothing is a message but what the encoder writes.
        assert encode(message) == data
        taken += 1
    return taken


def reframed(chance: random.Random, data: bytes) -> bytes:
    """Change a stream's header, heads and payloads, and give what was changed the checksums of a stream."""
    header = data[:HEADER_SIZE]
    if chance.random() < 0.2:
        header = mutate(chance, header[:-4])[: HEADER_SIZE - 4].ljust(HEADER_SIZE - 4, b"\0")
        header += struct.pack(">I", crc32(header))
    out, at, number = [header], HEADER_SIZE, 0
    while at < len(data):
        head = data[at : at + HEAD_SIZE]
        size = struct.unpack_from(">I", head, 8)[0]
        payload = data[at + HEAD_SIZE : at + HEAD_SIZE + size]
        at += HEAD_SIZE + size
        if chance.random() < 0.3:
            payload = mutate(chance, payload)
        head = head[:8] + struct.pack(">I", len(payload)) + head[12:24] + struct.pack(">I", crc32(payload))
        if chance.random() < 0.2:
            head = mutate(chance, head)[:28].ljust(28, b"\0")
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 1, 2))):
            whole = struct.pack(">I", number) + head[4:] if chance.random() < 0.95 else head
            out.append(whole + struct.pack(">I", crc32(whole)) + payload)
            number += 1
    return b"".join(out)


def read(data: bytes, memory: GuestMemory) -> list[Message]:
    """Read all of it as a destination does, until something is wrong with it."""
    pipe = BytesPipe(data)
    reader = Reader(pipe)
    messages: list[Message] = []
    try:
        reader.header()
        while True:
            messages.append(reader.message(memory if messages else None))
    except StreamError as error:
        one_line(error)
    assert pipe.largest <= MAXIMUM_STATE
    return messages


STREAM: Final = whole_move()


def fuzz_streams(chance: random.Random, count: int) -> int:
    memory = GuestMemory(MEMORY)
    return sum(len(read(reframed(chance, STREAM), memory)) for _ in range(count))


def test_changed_messages_are_refused_or_messages() -> None:
    taken = fuzz_messages(random.Random(1), CASES * 9 // 10)
    assert 0 < taken < CASES // 2


def test_changed_streams_are_refused_or_read() -> None:
    assert fuzz_streams(random.Random(2), CASES // 10) > CASES // 20


class Overheard(Link):
    """A link of which all that the source says is known."""

    def __init__(self) -> None:
        super().__init__([Ticks(10)])
        self.said: list[Message] = []

    def carry(self, message: Message, sent: int, source: TickSource) -> Message:
        if isinstance(message, Offer | State | Commit):
            self.said.append(message)
        return super().carry(message, sent, source)


def fuzz_destination(chance: random.Random, count: int) -> set[str]:
    """Say changed things in a changed order to destinations; what they answered."""
    clock, link = VirtualTime(), Overheard()
    guest = Host(clock=clock, engine="concrete").boot("demo-le.elf", "1M", tb_offset=1 << 50)
    guest.run_for(Ticks(1 << 22))
    move(guest, Host(clock=clock, tb_origin=1 << 60, engine="concrete"), link)
    said: list[Message] = [link.said[0], Round(1, [(0, b"x" * PAGE_SIZE)]), *link.said[1:]]
    written = [(next(n for n, (made, _) in KINDS.items() if made is type(m)), encode(m)) for m in said]
    answered: set[str] = set()
    host = Host(clock=clock, engine="concrete")
    for _ in range(count):
        destination = Destination(host)
        order = written[:]
        heard: set[str] = set()
        if chance.random() < 0.2:
            chance.shuffle(order)
        for number, payload in order:
            try:
                message = decode(number, mutate(chance, payload) if chance.random() < 0.2 else payload)
            except StreamError:
                continue
            if isinstance(message, Offer) and message.memory_size > 4 << 20:
                # `Arrivals` sees to that.
                continue
            clock.advance(1 << 12)
            answer = destination.handle(message)
            heard.add(type(answer).__name__)
            one_line_at_most(answer)
        assert destination.committed is ("Acknowledged" in heard)
        # There is a guest where one was accepted and not given up.
        assert len(host.guests) == (destination.memory is not None)
        assert not any(guest.running for guest in host.guests)
        for guest in list(host.guests):
            host.discard(guest)
        answered |= heard
    return answered


def one_line_at_most(answer: Message) -> None:
    """Whatever is answered can be written, and is shown as a line."""
    number = next(n for n, (made, _) in KINDS.items() if made is type(answer))
    again = decode(number, encode(answer))
    if isinstance(again, Aborted | Refused):
        assert "\n" not in again.reason


def test_a_destination_answers_whatever_comes() -> None:
    answered = fuzz_destination(random.Random(3), HANDLED)
    assert {"Accepted", "Refused", "Received", "Ready", "Aborted", "Acknowledged"} <= answered


def test_the_header_alone() -> None:
    chance = random.Random(4)
    whole = HEADER.encode()
    for _ in range(2000):
        data = mutate(chance, whole[:-4])[: HEADER_SIZE - 4].ljust(HEADER_SIZE - 4, b"\0")
        try:
            header = Header.decode(data + struct.pack(">I", crc32(data)))
        except StreamError as error:
            one_line(error)
        else:
            assert header.encode()[:-4] == data
