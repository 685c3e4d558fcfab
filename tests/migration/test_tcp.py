"""Moves over real sockets, in one process: what comes over, and what is left when the way fails."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from faulty_way import Fault, FaultyWay
from move_streams import BytesPipe, offer, whole_move

from chronovisor.machine import Console, EndReason, Guest, Host
from chronovisor.machine.errors import MachineError
from chronovisor.memory import in_use
from chronovisor.migration.address import Address, UnixAddress, parse_address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.departure import Departure
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Aborted, Accepted, Commit, Message, Round
from chronovisor.migration.outcomes import RecordedOutcomes
from chronovisor.migration.phases import DestinationPhase, SourcePhase, no_probe
from chronovisor.migration.source import Source, clock_name
from chronovisor.migration.stream import Header, Reader, Writer
from chronovisor.migration.tcp import TimeLimits
from chronovisor.timebase.types import GRANULE, Ticks

LIMITS = TimeLimits(60, 60, start=0)
IN_VAIN = 0.3
"""Seconds that a source waits for what will not come."""
PHASES = {
    **dict.fromkeys(("header", "Offer", "Accepted"), SourcePhase.ASK),
    **dict.fromkeys(("Round", "Received"), SourcePhase.COPY),
    **dict.fromkeys(("State", "Measure", "Ready"), SourcePhase.SEND_STATE),
    **dict.fromkeys(("Commit", "Acknowledged"), SourcePhase.COMMIT),
}
"""A message -> the source's phase in which it comes."""
ORIGIN = (1 << 63) + 987_654_321


class Ends:
    """A guest that runs, and a destination that waits for it."""

    def __init__(self, directory: Path) -> None:
        self.told: list[str] = []
        self.directory = directory
        self.source_host = Host(tb_origin=12_345_678, engine="concrete")
        self.guest = self.source_host.boot("demo-le.elf", "2M", console=Console())
        assert self.guest.run_until("watching")
        self.guest.resume()
        self.departure = Departure(self.guest)
        self.console = Console()
        self.arrivals = self.listen()
        self.ways: list[FaultyWay] = []

    def listen(self, memory_limit: int = 64 << 20, cpu: str = "power9") -> Arrivals:
        def host_for(header: Header) -> Host:
            return Host(tb_origin=ORIGIN, threads=header.threads, cpu=cpu, engine="concrete")

        outcomes = RecordedOutcomes(self.directory)
        terms = Terms(host_for, self.console, outcomes, memory_limit, LIMITS, self.told.append)
        return Arrivals(Address("127.0.0.1", 0), terms)

    def way(self, fault: Fault) -> FaultyWay:
        if fault.kind == "silence":
            self.departure._probe = partial(self._hurry, PHASES[fault.at])
        self.ways.append(FaultyWay(self.arrivals.address, fault))
        return self.ways[-1]

    def _hurry(self, phase: SourcePhase, now: SourcePhase | DestinationPhase) -> None:
        """From this phase on the source does not wait long on its first connection."""
        if now is phase and self.departure._leaving is not None:
            channel = self.departure._leaving[1]
            if channel._pipe is None:
                channel._limits = replace(LIMITS, silence=IN_VAIN)
            else:
                # The destination may have COMMIT, and is not to be asked before it has taken that.
                channel._pipe.limit = 10 * IN_VAIN if phase is SourcePhase.COMMIT else IN_VAIN

    def hears(self, words: str) -> None:
        """Wait until the destination's owner is told so, and it takes guests again."""
        for _ in range(1000):
            if any(words in line for line in self.told) and not self.arrivals._taking.locked():
                return
            time.sleep(0.01)
        raise AssertionError(f"{words!r} is not among {self.told}")

    def close(self) -> None:
        self.arrivals.close()
        for way in self.ways:
            way.close()
        self.source_host.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path / "moves")
    yield made
    made.close()


def goes_on(guest: Guest, console: Console) -> bool:
    """Whether the guest does, and finds its time and memory in order."""
    console.type("r")
    if not guest.run_until(lambda text: "intact\n" in text or "CHANGED\n" in text, Ticks(120 * 512_000_000)):
        return False
    report = console.text[console.text.index("guest: readings") :]
    guest.resume()
    return " back=0 " in report and "memory=intact" in report


def arrived(ends: Ends) -> Arrived:
    found = ends.arrivals.wait(60)
    assert found is not None
    return found


def test_a_guest_comes_over_with_its_time(ends: Ends) -> None:
    # More than it can do before it is moved: the report is asked for here and made there.
    ends.guest.console.type("x" * 30 + "r")
    record = ends.departure.migrate(ends.arrivals.address, LIMITS).record
    assert ends.guest.end is not None
    assert ends.guest.end.reason is EndReason.MOVED
    came = arrived(ends)
    assert came.record == record
    with came.host:
        guest = came.destination.start(running=True)

        assert guest.run_until("memory=intact", Ticks(120 * 512_000_000))
        assert " back=0 " in ends.console.text
        assert abs(record.error_ticks) <= record.error_bound_ticks < GRANULE + 50_000_000
        assert abs(record.rounding_ticks) <= GRANULE // 2
        truth = ends.guest.system.clock.now().value - guest.system.clock.now().value
        offset = guest.get("TB_OFFSET")
        assert abs((offset - truth + (1 << 63)) % (1 << 64) - (1 << 63)) <= record.error_bound_ticks


BEFORE_COMMIT = [
    *((True, at) for at in ("header", "Offer", "Round", "State", "Measure")),
    *((False, at) for at in ("header", "Accepted", "Received", "Ready")),
]
FAULTS = ["cut", "silence", "corrupt", "truncate"]


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(("from_source", "at"), BEFORE_COMMIT)
def test_before_commit_every_failure_leaves_the_guest_at_the_source(
    ends: Ends, from_source: bool, at: str, kind: str
) -> None:
    offset, ideal = ends.guest.get("TB_OFFSET"), ends.guest.ideal
    with pytest.raises(MoveError):
        ends.departure.migrate(ends.way(Fault(from_source, at, kind)).address, LIMITS)
    assert ends.departure.state == "running"
    assert (ends.guest.get("TB_OFFSET"), ends.guest.ideal) == (offset, ideal)
    if at in {"header", "Offer"}:
        assert not ends.told or "given up" not in ends.told[-1]
    else:
        # The destination has given it up, and takes the guest the next time.
        ends.hears("given up")
        assert goes_on(ends.guest, ends.guest.console)
    ends.departure._probe = no_probe
    ends.departure.migrate(ends.arrivals.address, LIMITS)
    arrived(ends).host.close()


@pytest.mark.parametrize("kind", FAULTS)
def test_a_commit_that_is_lost_is_asked_about_and_the_guest_goes_on_at_the_source(
    ends: Ends, kind: str
) -> None:
    with pytest.raises(MoveError, match="gave the move up"):
        ends.departure.migrate(ends.way(Fault(True, "Commit", kind)).address, LIMITS)
    assert ends.departure.state == "running"
    ends.hears("given up")
    assert goes_on(ends.guest, ends.guest.console)


@pytest.mark.parametrize("kind", FAULTS)
def test_an_answer_that_is_lost_is_asked_for_and_the_guest_is_the_destinations(ends: Ends, kind: str) -> None:
    report = ends.departure.migrate(ends.way(Fault(False, "Acknowledged", kind)).address, LIMITS)
    assert ends.departure.state == "ended"
    came = arrived(ends)
    assert came.record == report.record
    with came.host:
        assert goes_on(came.destination.start(running=True), ends.console)


@pytest.mark.parametrize("from_source", [True, False])
def test_without_an_answer_the_guest_stays_paused_until_there_is_one(ends: Ends, from_source: bool) -> None:
    way = ends.way(Fault(from_source, "Commit" if from_source else "Acknowledged", "cut"))
    way.open_again = False
    with pytest.raises(MoveUndecidedError):
        ends.departure.migrate(way.address, LIMITS)
    assert ends.departure.state == "undecided"
    assert not ends.guest.running
    with pytest.raises(MachineError, match="--resolve"):
        ends.departure.migrate(ends.arrivals.address, LIMITS)
    with pytest.raises(MoveUndecidedError):
        ends.departure.resolve()
    way.open_again = True
    if from_source:
        # COMMIT was lost: the question itself ends the move, even after the destination gave it up.
        with pytest.raises(MoveError, match="goes on here"):
            ends.departure.resolve()
        assert ends.departure.state == "running"
    else:
        record = ends.departure.resolve().record
        assert record == arrived(ends).record
        assert ends.departure.state == "ended"
        arrived(ends).host.close()


def test_a_destination_that_never_heard_of_the_move_decides_nothing(ends: Ends, tmp_path: Path) -> None:
    way = ends.way(Fault(True, "Commit", "cut"))
    way.open_again = False
    with pytest.raises(MoveUndecidedError):
        ends.departure.migrate(way.address, LIMITS)
    ends.directory = tmp_path / "elsewhere"
    ends.arrivals.close()
    ends.arrivals = ends.listen()
    way.target = ends.arrivals.address
    way.open_again = True
    with pytest.raises(MoveUndecidedError, match="Unknown"):
        ends.departure.resolve()
    assert ends.departure.state == "undecided"


def test_the_operators_word_lets_it_go_on(ends: Ends) -> None:
    way = ends.way(Fault(True, "Commit", "cut"))
    way.open_again = False
    with pytest.raises(MachineError, match="no move"):
        ends.departure.force_resume()
    with pytest.raises(MoveUndecidedError) as undecided:
        ends.departure.migrate(way.address, LIMITS)
    assert ends.departure.force_resume() == undecided.value.move
    assert ends.departure.state == "running"
    assert goes_on(ends.guest, ends.guest.console)


def test_of_two_moves_at_once_one_is_refused(ends: Ends) -> None:
    way = ends.way(Fault(False, "Ready", "silence"))
    results: list[BaseException] = []

    def first() -> None:
        try:
            ends.departure.migrate(way.address, LIMITS)
        except MoveError as error:
            results.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    while ends.departure.state != "moving":
        pass
    with pytest.raises(MachineError, match="on its way to"):
        ends.departure.migrate(ends.arrivals.address, LIMITS)
    thread.join()
    assert len(results) == 1
    assert ends.departure.state == "running"


def test_a_guest_that_cannot_be_taken_goes_on_and_the_destination_waits(ends: Ends) -> None:
    ends.arrivals.close()
    for changed, words in (({"memory_limit": 1 << 20}, "at most"), ({"cpu": "power8"}, "version")):
        ends.arrivals = ends.listen(**changed)  # type: ignore[arg-type]
        with pytest.raises(MoveError, match=words):
            ends.departure.migrate(ends.arrivals.address, LIMITS)
        assert ends.departure.state == "running"
        assert ends.arrivals.wait(0) is None
        assert words in ends.told.pop()
        # The next one is considered anew.
        with pytest.raises(MoveError, match=words):
            ends.departure.migrate(ends.arrivals.address, LIMITS)
        ends.arrivals.close()


def test_a_commit_that_comes_after_the_question_comes_too_late(ends: Ends) -> None:
    outcomes = RecordedOutcomes(ends.directory)
    with Host(tb_origin=ORIGIN, engine="concrete") as host:
        destination = Destination(host, outcomes=outcomes)

        def handle(message: Message) -> Message:
            if isinstance(message, Commit):
                # On a connection of its own, as a source asks that takes this one for lost.
                assert isinstance(outcomes.ask(source.move), Aborted)
            return destination.handle(message)

        source = Source(ends.guest, Link([Ticks(100)]).connect(ends.source_host.clock.source, handle))
        with pytest.raises(MoveError, match="had not come"):
            source.give_away()
        assert host.guests == []
        with pytest.raises(MoveError, match="not given"):
            destination.start(running=True)
    assert ends.guest.running


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(40), "no stream of a Chronovisor guest"),
        (b"\x89CHRONO\n\x00\x09", "version 9"),
        (b"\x89CHRONO\n", "closed the connection"),
        (whole_move()[:-1000][:60], "closed the connection"),
        (b"", "closed the connection"),
    ],
    ids=["garbage", "newer", "a piece of the header", "a piece of a frame", "nothing"],
)
def test_who_sends_no_stream_is_told_and_the_destination_waits(ends: Ends, sent: bytes, words: str) -> None:
    with socket.create_connection((ends.arrivals.address.host, ends.arrivals.address.port)) as peer:
        peer.sendall(sent)
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := peer.recv(4096):
            answer += piece
    assert [words in line for line in ends.told] == [True]
    assert words.encode() in answer
    ends.departure.migrate(ends.arrivals.address, LIMITS)
    arrived(ends).host.close()


def test_a_port_in_use_and_one_where_nobody_is(ends: Ends) -> None:
    with pytest.raises(MachineError, match="in use"):
        Arrivals(
            ends.arrivals.address,
            Terms(lambda _: ends.source_host, Console(), RecordedOutcomes(ends.directory), 0),
        )
    ends.arrivals.close()
    with pytest.raises(MoveError, match="nobody listens"):
        ends.departure.migrate(ends.arrivals.address, LIMITS)
    assert ends.departure.state == "running"


@pytest.mark.parametrize(
    "text",
    [
        *("tcp:127.0.0.1", "127.0.0.1:1", "tcp:a b:1", "tcp:::1:80", "tcp:h:65536", "tcp:h:0"),
        *("tls:h", "ssl:h:1", "unix:", "unix:/" + "x" * 107, "unix:/a\0b"),
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(MachineError, match="address"):
        parse_address(text)


def test_addresses_of_both_families() -> None:
    assert parse_address("tcp:[::1]:80") == Address("::1", 80)
    assert str(Address("::1", 80)) == "tcp:[::1]:80"
    assert parse_address("tcp:localhost:0", listen=True) == Address("localhost", 0)
    assert Address("::1", 80).resolve()
    assert parse_address("tls:h:80") == Address("h", 80, tls=True)
    assert str(Address("::1", 80, tls=True)) == "tls:[::1]:80"
    assert parse_address("unix:/a/../b") == UnixAddress("/b")
    for outside in ("tcp:192.0.2.1:80", "tcp:[2001:db8::1]:80", "tcp:0.0.0.0:80"):
        with pytest.raises(MachineError, match="loopback"):
            parse_address(outside).resolve()
        assert parse_address(outside, insecure=True).resolve()
        assert parse_address("tls" + outside[3:]).resolve()


def test_a_move_that_is_replayed_is_refused(ends: Ends) -> None:
    """Somebody on the way sends again what he heard: the guest came already, and does not come twice."""
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen_in() -> None:
            source, _ = listener.accept()
            with socket.create_connection((ends.arrivals.address.host, ends.arrivals.address.port)) as there:
                threading.Thread(target=carry, args=(there, source, bytearray()), daemon=True).start()
                carry(source, there, heard)

        threading.Thread(target=listen_in, daemon=True).start()
        ends.departure.migrate(Address("127.0.0.1", listener.getsockname()[1]), LIMITS)
    came = arrived(ends)
    came.start()
    came.host.close()
    ends.arrivals.take_another()
    with socket.create_connection((ends.arrivals.address.host, ends.arrivals.address.port)) as again:
        with contextlib.suppress(OSError):
            again.sendall(heard)
            again.shutdown(socket.SHUT_WR)
        answer = bytearray()
        with contextlib.suppress(OSError):
            while piece := again.recv(1 << 16):
                answer += piece
    assert b"offered before" in answer
    assert ends.arrivals.wait(0.2) is None


def carry(come: socket.socket, go: socket.socket, heard: bytearray) -> None:
    with contextlib.suppress(OSError):
        while piece := come.recv(1 << 16):
            heard += piece
            go.sendall(piece)


def test_an_offer_takes_no_memory_until_memory_comes() -> None:
    with Host(engine="concrete") as host:
        destination = Destination(host)
        size = 256 << 20
        made = replace(offer(devices=()), sregs=None, memory_size=size, clock=clock_name(host.clock.source))
        assert destination.handle(made) == Accepted()
        memory = destination.memory
        assert memory is not None
        touched = in_use._Touched(memory)
        assert not touched(0, size)
        pipe = BytesPipe()
        block = (0, bytes(1 << 20))
        Writer(pipe).message(Round(1, [block]))
        assert isinstance(Reader(pipe).message(memory), Round)
        assert touched(0, 1 << 20)
        # The huge page that it is in, at most.
        assert not touched(4 << 20, size - (4 << 20))
