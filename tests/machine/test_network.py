"""A network card as a guest's driver sees it, and the programs at the other end."""

from __future__ import annotations

import os
import random
import re
import stat
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chronovisor.machine.errors import MachineError
from chronovisor.machine.network import LARGEST_FRAME, Link, LinkEndedError, NetworkOption, Passt, Tap
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.device import Surroundings
from chronovisor.machine.vio.dma_window import Access
from chronovisor.machine.vio.lan import NetworkAdapter
from chronovisor.machine.vio.lan_buffers import MOST_BUFFERS
from chronovisor.memory import GuestMemory
from chronovisor.memory.gate import Place
from chronovisor.memory.word_queue import FIRST, LIMIT, PLACES, TAIL, WORDS
from chronovisor.memory.words import words
from chronovisor.papr.hcalls import Status

MEMORY = 8 << 20
LIST, FILTERS, QUEUE, DATA, SENT = 0x10000, 0x11000, 0x12000, 0x100000, 0x700000
ENTRIES = 7
PATIENCE = 1.0
"""Seconds that a frame waits for a buffer."""
VALID = 1 << 63
MAC = bytes.fromhex("525400123456")
WORD = int.from_bytes(MAC, "big")


class Wire(Link):
    """The other end is the test."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        super().__init__(reading)
        self.coming: list[bytes] = []
        self.sent: list[bytes] = []
        self.takes = True

    def come(self, *frames: bytes) -> None:
        self.coming += frames
        os.write(self._writing, b"x")

    def read(self) -> Sequence[memoryview]:
        os.read(self.descriptor, 1)
        if not self.coming:
            raise LinkEndedError("the wire was cut")
        frames, self.coming = [memoryview(frame) for frame in self.coming], []
        return frames

    def send(self, frame: Sequence[memoryview]) -> bool:
        self.sent.append(b"".join(frame))
        return self.takes

    def close(self) -> None:
        super().close()
        os.close(self.descriptor)
        os.close(self._writing)


class Card:
    """Drives a card as Linux does."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.memory = GuestMemory(MEMORY)
        self.interrupts: list[int] = []
        self.troubles: list[str] = []
        self.wire = wire or Wire()
        self.given = words(WORDS)
        around = Surroundings(
            self.memory,
            lambda *_: None,
            self.interrupts.append,
            False,
            self.troubles.append,
            lan_buffers=lambda unit: self.given,
        )
        self.adapter = NetworkAdapter(0x7100_0020, around, MAC, self.wire)
        self.adapter.signals = True
        both = Access.READ | Access.WRITE
        assert self.adapter.window.put(0, [page | both for page in range(0, MEMORY, 4096)])
        self._next, self._toggle = 0, 1
        self._buffers = 0
        self.now = 0.0
        """The seconds by which waits for buffers are measured: the test says how they pass."""

    def register(self) -> Status:
        return self.adapter.register(LIST, VALID | (16 * ENTRIES) << 32 | QUEUE, FILTERS, WORD)

    def add(self, size: int) -> Status:
        """Hand over a buffer; its number is in its first bytes."""
        return self.adapter.add_buffer(self._buffer(size))

    def give(self, size: int) -> bool:
        """Hand over a buffer as `add` does, but without a call of the card; whether it takes one."""
        return give(self.given, self._buffer(size))

    def _buffer(self, size: int) -> int:
        at = DATA + 0x11000 * (self._buffers % 80)
        self.memory.write(at, struct.pack("<Q", at))
        self._buffers += 1
        return VALID | size << 32 | at

    def frame(self, seconds: float = 60) -> bytes | None:
        """Wait for the next frame of the receive queue and take it."""
        deadline = time.monotonic() + seconds
        at = QUEUE + 16 * self._next
        while True:
            flags, size, correlator = struct.unpack(">II8s", self.memory.read(at, 16))
            if flags >> 31 == self._toggle:
                break
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)
        assert flags & 0x7FFF_FFFF == 0x4000_0008
        self._next = (self._next + 1) % ENTRIES
        self._toggle ^= self._next == 0
        return self.memory.read(struct.unpack("<Q", correlator)[0] + 8, size)


def received(link: Link, seconds: float | None = None) -> Sequence[memoryview]:
    """The frames that come next; none after `interrupt`, or after so many seconds."""
    return link.read() if link.await_frames(seconds) else ()


def give(queue: memoryview, word: int) -> bool:
    """Leave a word in a queue as the hypervisor does (`memory.word_queue`); whether the queue takes it."""
    tail = queue[TAIL]
    if tail >= queue[LIMIT]:
        return False
    queue[TAIL] = tail + 1
    queue[FIRST + tail % PLACES] = word
    return True


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    card = Card()
    monkeypatch.setattr("chronovisor.machine.vio.lan_receiver.monotonic", lambda: card.now)
    yield card
    card.adapter.close()


def frame(size: int, to: bytes = MAC) -> bytes:
    return to + random.Random(size).randbytes(size - 6)


def test_frames_come_in_order_through_a_queue_that_goes_round(card: Card) -> None:
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    chance = random.Random(1)
    for _ in range(20):
        sizes = [chance.randint(14, 9000) for _ in range(chance.randint(1, ENTRIES))]
        for size in sizes:
            assert card.add(size + 8) == Status.SUCCESS
        # The largest first: each has to find the buffer that is just large enough.
        for size in sorted(sizes, reverse=True):
            card.wire.come(frame(size))
            assert card.frame() == frame(size)
    assert set(card.interrupts) == {card.adapter.source}
    assert card.troubles == []


def test_a_frame_waits_a_little_for_a_buffer_and_is_lost_then(card: Card) -> None:
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    card.wire.come(frame(100))
    assert card.frame(0.02) is None
    assert card.add(200) == Status.SUCCESS
    assert card.frame() == frame(100)
    assert card.add(64) == Status.SUCCESS
    card.wire.come(frame(101))
    until(lambda: card.adapter._receiver.waits)
    card.now += 0.99 * PATIENCE
    assert card.frame(0.02) is None
    assert card.adapter._receiver.waits
    card.now += 0.02 * PATIENCE
    until(lambda: struct.unpack(">Q", card.memory.read(LIST + 4088, 8)) == (1,))
    assert card.frame(0) is None
    card.wire.come(frame(50))
    assert card.frame() == frame(50)


def test_buffers_come_without_a_call_but_the_one_that_tells_of_them(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing but a call tells the card's thread of buffers.
    monkeypatch.setattr("chronovisor.machine.vio.lan._LOOK_AGAIN", 60.0)
    assert not card.give(2048)
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    for count in (1, 2, ENTRIES):
        for size in range(100, 100 + count):
            assert card.give(size + 8)
        card.wire.come(*(frame(size) for size in range(100, 100 + count)))
        assert [card.frame() for _ in range(count)] == [frame(size) for size in range(100, 100 + count)]
    card.wire.come(frame(200), frame(201), frame(202))
    for size in (200, 201, 202):
        # Too small, until the card wants to be told.
        until(lambda: not card.give(16))
        assert card.add(2048) == Status.SUCCESS
        assert card.frame() == frame(size)
    until(lambda: card.give(64))
    card.adapter.pause()
    assert 64 in {word >> 32 & 0xFF_FFFF for word in card.adapter.save().buffers}
    assert card.adapter.free_buffer(64) == Status.SUCCESS
    assert card.adapter.free() == Status.SUCCESS
    assert not card.give(2048)


def test_frames_are_read_while_others_wait_for_buffers(card: Card) -> None:
    """passt loses what it cannot write at once, and sends all of it again."""
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    sizes = range(100, 120)
    for size in sizes:
        card.wire.come(frame(size))
        until(lambda: not card.wire.coming)
    for size in sizes:
        # All in all longer than the first of them may wait.
        card.now += 0.07 * PATIENCE
        assert card.add(2048) == Status.SUCCESS
        assert card.frame() == frame(size)


def test_frames_that_wait_have_a_bound(card: Card) -> None:
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    card.adapter.pause()
    # 4 MiB and a little.
    for _ in range(64):
        card.wire.come(frame(LARGEST_FRAME))
        until(lambda: not card.wire.coming)
    card.wire.come(frame(60))
    time.sleep(0.15)
    assert card.wire.coming == [frame(60)]
    card.adapter.resume()
    card.now += 2 * PATIENCE
    until(lambda: not card.wire.coming)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_frames_for_others_and_before_the_card_is_used_are_lost(card: Card) -> None:
    card.adapter.resume()
    # The card comes for the second one when it is done with the first one.
    for data in (frame(100), b"short"):
        card.wire.come(data)
        until(lambda: not card.wire.coming)
    assert card.register() == Status.SUCCESS
    for _ in range(2):
        assert card.add(2048) == Status.SUCCESS
    card.wire.come(b"", b"short", frame(100, bytes(6)), frame(100, b"\xff" * 6))
    assert card.frame() == frame(100, b"\xff" * 6)
    assert card.adapter.change_address(5) == Status.SUCCESS
    card.wire.come(frame(100), frame(60, bytes(5) + b"\x05"))
    assert card.frame() == frame(60, bytes(5) + b"\x05")


def test_nothing_is_touched_while_it_is_paused(card: Card) -> None:
    assert card.register() == Status.SUCCESS
    assert card.add(2048) == Status.SUCCESS
    card.adapter.resume()
    card.adapter.pause()
    card.memory.dirty.take()
    card.wire.come(frame(100))
    assert card.frame(0.05) is None
    assert card.memory.dirty.take() == []
    # Nor does the card's thread look again and again whether it may, once it knows of the frame.
    looks: list[object] = []
    until(lambda: card.adapter._receiver.waits and not card.adapter._changing.locked())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card.adapter._receiver, "hand_over", looks.append)
        time.sleep(0.05)
    assert looks == []
    card.wire.come(frame(101))
    card.adapter.resume()
    assert card.frame() == frame(100)
    assert card.add(2048) == Status.SUCCESS
    assert card.frame() == frame(101)


@pytest.mark.parametrize("cuts", [[60], [14, 1, 45], [10, 10, 10, 10, 10, 10], [9000, 60, 1, 40000]])
def test_a_frame_is_sent_from_its_pieces(card: Card, cuts: list[int]) -> None:
    data = random.Random(3).randbytes(sum(cuts))
    words, at = [], 0
    for number, size in enumerate(cuts):
        where = SENT + 0xB007 * number
        card.memory.write(where, data[at : at + size])
        words.append(VALID | size << 32 | where)
        at += size
    assert card.adapter.send([*words, *[0] * (6 - len(cuts))], 0) == Status.SUCCESS
    assert card.wire.sent == [data]
    card.wire.takes = False
    assert card.adapter.send([*words, *[0] * (6 - len(cuts))], 0) == Status.DROPPED


class Slow(Wire):
    """The other end may have taken a part of a frame."""

    rests = True

    @property
    def at_rest(self) -> bool:
        return self.rests


def test_hypercalls_send_frames_only_while_nothing_else_is_under_way() -> None:
    wire = Slow()
    card = Card(wire)
    frame_at = VALID | 60 << 32 | SENT

    def send() -> tuple[Status, bool]:
        status = card.adapter.send([frame_at, *[0] * 5], 0)
        return status, bool(card.adapter.gate.words[Place.OPEN])

    assert send() == (Status.SUCCESS, True)
    wire.rests = False
    assert send() == (Status.SUCCESS, False)
    wire.rests = True
    assert send() == (Status.SUCCESS, True)
    # A hypercall has sent a part of a frame: nothing can be sent behind that.
    card.adapter.gate.words[Place.CUT] = 1
    sent = len(wire.sent)
    assert send() == send() == (Status.DROPPED, False)
    assert len(wire.sent) == sent
    card.adapter.close()
    other = Card()
    assert other.adapter.send([frame_at, *[0] * 5], 0) == Status.SUCCESS
    other.adapter.close()
    other.adapter.send([frame_at, *[0] * 5], 0)
    assert not other.adapter.gate.words[Place.OPEN]


CALLS: dict[str, Callable[[Card], Status]] = {
    "a list that is no page": lambda card: card.adapter.register(16, VALID | 16 << 32 | QUEUE, 0, WORD),
    "filters that are no page": lambda card: card.adapter.register(LIST, VALID | 16 << 32 | QUEUE, 8, WORD),
    "a queue of nothing": lambda card: card.adapter.register(LIST, VALID | QUEUE, FILTERS, WORD),
    "a queue outside": lambda card: card.adapter.register(LIST, VALID | 16 << 32 | MEMORY, FILTERS, WORD),
    "a list outside": lambda card: card.adapter.register(MEMORY, VALID | 16 << 32 | QUEUE, FILTERS, WORD),
    "a buffer that is not valid": lambda card: card.adapter.add_buffer(64 << 32 | DATA),
    "a buffer of nothing": lambda card: card.adapter.add_buffer(VALID | 8 << 32 | DATA),
    "a frame of nothing": lambda card: card.adapter.send([0] * 6, 0),
    "a frame that is too long": lambda card: card.adapter.send([VALID | 40000 << 32] * 6, 0),
    "a frame from outside": lambda card: card.adapter.send([VALID | 64 << 32 | MEMORY], 0),
    "a frame to go on with": lambda card: card.adapter.send([VALID | 64 << 32 | DATA], 1),
    "unknown flags": lambda card: card.adapter.multicast(1 << 63),
}


@pytest.mark.parametrize("what", CALLS)
def test_what_makes_no_sense_is_refused(card: Card, what: str) -> None:
    assert CALLS[what](card) == Status.PARAMETER
    assert card.wire.sent == []


def test_buffers_have_an_end_and_can_be_taken_back(card: Card) -> None:
    assert card.add(2048) == Status.RESOURCE
    assert card.register() == Status.SUCCESS
    assert card.register() == Status.RESOURCE
    assert card.adapter.free_buffer(2048) == Status.NOT_FOUND
    for _ in range(MOST_BUFFERS):
        assert card.add(2048) == Status.SUCCESS
    assert card.add(2048) == Status.RESOURCE
    assert card.adapter.free_buffer(2048) == Status.SUCCESS
    assert card.add(2048) == Status.SUCCESS
    assert card.adapter.free() == Status.SUCCESS
    assert card.add(2048) == Status.RESOURCE


def test_a_buffer_that_comes_while_all_are_given_up_is_not_kept(card: Card) -> None:
    """A hypercall has found room in the queue, and stores the buffer later."""
    assert card.register() == Status.SUCCESS
    place = FIRST + card.given[TAIL] % PLACES
    card.given[TAIL] += 1
    assert card.adapter.free() == Status.SUCCESS
    card.given[place] = VALID | 2048 << 32 | DATA
    state = card.adapter.save()
    assert state.buffers == ()
    # Else it could not be loaded.
    card.adapter.load(state)


def test_buffers_that_the_guest_takes_away_are_not_written(card: Card) -> None:
    assert card.register() == Status.SUCCESS
    assert card.add(2048) == Status.SUCCESS
    card.adapter.window.clear()
    card.adapter.resume()
    card.wire.come(frame(100))
    assert card.frame(0.05) is None


def test_a_saved_card_goes_on(card: Card) -> None:
    other = Card()
    assert card.register() == Status.SUCCESS
    card.adapter.resume()
    for size in (100, 2048, 100):
        assert card.add(size) == Status.SUCCESS
    card.wire.come(frame(60))
    assert card.frame() == frame(60)
    card.adapter.pause()
    other.memory.view[:] = card.memory.view
    other._next, other._toggle = card._next, card._toggle
    other.adapter.load(card.adapter.save())
    assert other.adapter.save() == card.adapter.save()
    other.adapter.resume()
    other.wire.come(frame(61), frame(1000))
    assert [other.frame(), other.frame()] == [frame(61), frame(1000)]
    other.adapter.close()


@pytest.mark.parametrize(
    ("mac", "queue"),
    [
        (MAC[:5], {}),
        (MAC + b"x", {}),
        (MAC, {"size": 24}),
        (MAC, {"next": 8}),
        (MAC, {"address": QUEUE + 8}),
        (MAC, {"next": 1 << 20}),
        (MAC, {"size": 0, "next": 16}),
    ],
)
def test_a_saved_card_that_makes_no_sense_is_refused_and_changes_nothing(
    card: Card, mac: bytes, queue: dict[str, int]
) -> None:
    assert card.register() == Status.SUCCESS
    card.adapter.pause()
    state = card.adapter.save()
    with pytest.raises(ValueError, match="makes no sense"):
        card.adapter.load(replace(state, mac=mac, queue=state.queue._replace(**queue)))
    assert card.adapter.save() == state


def test_a_link_that_ends_is_one_line_and_the_guest_goes_on(card: Card) -> None:
    card.adapter.resume()
    os.write(card.wire._writing, b"x")
    until(lambda: bool(card.troubles))
    assert card.troubles == ["network 71000020: the wire was cut; the guest goes on without it"]
    assert card.register() == Status.SUCCESS
    assert card.adapter.send([VALID | 64 << 32 | DATA], 0) == Status.DROPPED


# The programs at the other end

ECHO = """#!{python}
import os, socket, struct, sys
way = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
{course}
"""
COURSES = {
    "echo": "while data := way.recv(99): way.sendall(data)",
    "gulps": "import random\nwhile data := way.recv(random.randrange(1, 99999)): way.sendall(data)",
    "arguments": """said = " ".join(sys.argv[1:]).encode()
way.sendall(struct.pack(">I", len(said)) + said)
way.recv(1)""",
    "ends": 'print("no route", file=sys.stderr); sys.exit(3)',
    "rubbish": 'way.sendall(b"\\xff" * 8); way.recv(1)',
    "deaf": "import time; time.sleep(60)",
}


@pytest.fixture
def passt(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passt]:
    program = tmp_path / "passt"
    program.write_text(ECHO.format(python=sys.executable, course=COURSES[request.param]))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    link = Passt()
    yield link
    link.close()
    assert link._process.returncode is not None


@pytest.mark.parametrize("passt", ["echo"], indirect=True)
def test_frames_go_through_passts_socket(passt: Passt) -> None:
    frames = [frame(size) for size in (14, 60, 1514, LARGEST_FRAME)]
    came: list[bytes] = []
    for one in frames:
        assert passt.send([memoryview(one)[:7], memoryview(one)[7:]])
        while len(came) < len(frames) and (not came or came[-1] != one):
            came += [bytes(view) for view in received(passt)]
    assert came == frames
    passt.interrupt()
    assert received(passt) == ()


@pytest.mark.parametrize("passt", ["arguments"], indirect=True)
def test_the_guest_is_told_of_frames_as_large_as_linux_takes(passt: Passt) -> None:
    (said,) = received(passt)
    found = re.search(r"--mtu (\d+)", bytes(said).decode())
    assert found is not None
    # What ibmveth needs besides of its largest buffer of 64 KiB (IBMVETH_BUFF_OH).
    assert 65_000 < int(found[1]) <= 65_535 - 22
    assert int(found[1]) + 18 <= LARGEST_FRAME


@pytest.mark.parametrize("passt", ["gulps"], indirect=True)
def test_frames_are_whole_wherever_the_socket_cuts_them(passt: Passt) -> None:
    chance, sent, size, came = random.Random(7), 0, 0, 0
    expected: deque[bytes] = deque()
    most = 0
    while size < 4 << 20 or expected:
        if size < 4 << 20:
            one = frame(chance.choice((14, 60, 1514, LARGEST_FRAME)) - 4) + sent.to_bytes(4, "big")
            if passt.send([memoryview(one)]):
                expected.append(one)
                sent, size = sent + 1, size + len(one)
        views = received(passt, 0.001)
        most = max(most, sum(map(len, views)))
        for view in views:
            assert view == expected.popleft()
            came += 1
    assert came == sent > 100
    # More than one call returns, so parts of frames were kept.
    assert most > LARGEST_FRAME


@pytest.mark.parametrize(
    ("passt", "words"),
    [
        ("ends", "passt has ended with status 3, saying 'no route'"),
        ("rubbish", "a frame of 4294967295 bytes"),
    ],
    indirect=["passt"],
)
def test_a_helper_that_ends_or_sends_rubbish_is_told(passt: Passt, words: str) -> None:
    with pytest.raises(LinkEndedError, match=words):
        received(passt)
    passt.send([memoryview(frame(60))])


@pytest.mark.parametrize("passt", ["deaf"], indirect=True)
def test_a_helper_that_takes_nothing_holds_nobody_up(passt: Passt) -> None:
    one = [memoryview(frame(60000))]
    sent = sum(passt.send(one) for _ in range(1000))
    assert 0 < sent < 1000
    assert len(passt._unsent) <= 60004


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("none", None),
        ("passt", NetworkOption()),
        ("tap=tap0", NetworkOption("tap0")),
        ("passt,mac=52:54:00:12:34:56", NetworkOption(mac=MAC)),
        (
            "passt,tcp=2222:22,udp=::1/53,tcp=0.0.0.0/80:8080",
            NetworkOption(
                ports=(("tcp", "127.0.0.1/2222:22"), ("udp", "::1/53"), ("tcp", "0.0.0.0/80:8080"))
            ),
        ),
    ],
)
def test_networks_as_users_name_them(text: str, option: NetworkOption | None) -> None:
    assert NetworkOption.parse(text) == option


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "user",
            "tap",
            "tap=",
            "tap=a-name-that-is-too-long",
            "passt,mac=1",
            "passt,mac=01:00:00:00:00:00",
        ),
        *(
            "passt,tcp=",
            "passt,tcp=0:1",
            "passt,tcp=1:65536",
            "passt,tcp=here/1:2",
            "passt,tcp=1:",
            "passt,tcp=all",
        ),
        *("tap=t,tcp=1:2", "none,tcp=1:2", "passt,sctp=1:2"),
    ],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(MachineError, match="net "):
        NetworkOption.parse(text)


def test_what_is_missing_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="install Debian's package passt"):
        Attachments.parse((), "passt").check()
    with pytest.raises(MachineError, match=r"net tap=nosuch: there is no such device: make it with `ip"):
        Attachments.parse((), "tap=nosuch").check()
    with pytest.raises(MachineError, match="net tap=lo: "):
        Tap("lo")
    around = Surroundings(card.memory, lambda *_: None, print, True, print)
    with pytest.raises(MachineError, match="virtual time has no network"):
        Attachments.parse((), "passt").open(around)


IN_A_NAMESPACE = """
import ctypes, fcntl, socket, struct
new_user, new_network, rename = 0x10000000, 0x40000000, 0x8923
if ctypes.CDLL(None, use_errno=True).unshare(new_user | new_network):
    raise SystemExit(77)
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, rename, struct.pack("16s16s8x", b"lo", b"renamed"))
from chronovisor.machine.network import NetworkOption
NetworkOption("renamed").check()
"""


def test_a_tap_is_looked_for_in_the_network_namespace_of_the_process() -> None:
    """/sys was mounted in another one."""
    done = subprocess.run([sys.executable, "-c", IN_A_NAMESPACE], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this machine lets nobody make a network namespace")
    assert (done.returncode, done.stderr) == (0, "")
