"""What happens at one moment of a move, between two of its phases."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.isa.assembly import assemble
from chronovisor.machine import Console, Guest, Host
from chronovisor.machine.disk import DiskOption
from chronovisor.machine.disk_file import DiskFile
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.attachments import NOTHING, Attachments
from chronovisor.memory import PAGE_SIZE, DirtyLog
from chronovisor.migration.address import Address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.departure import Departure
from chronovisor.migration.errors import MoveCancelledError, MoveError, MoveUndecidedError
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.pause import Pause
from chronovisor.migration.phases import DestinationPhase, Probe, SourcePhase, no_probe
from chronovisor.migration.stream import Header
from chronovisor.migration.tcp import TimeLimits
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GRANULE, Ticks

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import Elf, Part

ENTRY: Final = 0x10000
SPINS: Final = Elf(
    [Part(assemble("again: addi r3,r3,1; b again", ENTRY, False), ENTRY)], ENTRY, little=False
).build()
MS: Final = 512_000
DATA: Final = 0x40_0000
LIMITS: Final = TimeLimits(60, 60, start=0)


def at(phase: SourcePhase | DestinationPhase, act: Callable[[], object]) -> Probe:
    """A probe that acts when this phase is about to begin."""

    def probe(now: SourcePhase | DestinationPhase) -> None:
        if now is phase:
            act()

    return probe


@pytest.fixture
def guest() -> Iterator[Guest]:
    with Host(tb_origin=1 << 40, engine="concrete") as host:
        guest = host.boot(SPINS, "8M")
        guest.resume()
        yield guest


def waiting(probe: Probe = no_probe, attachments: Attachments = NOTHING) -> Arrivals:
    def host_for(header: Header) -> Host:
        host = Host(tb_origin=5, engine="concrete")
        host.attachments = attachments
        return host

    terms = Terms(
        host_for,
        Console(),
        RememberedOutcomes(),
        64 << 20,
        LIMITS,
        probe=probe,
    )
    return Arrivals(Address("127.0.0.1", 0), terms)


@pytest.fixture
def arrivals() -> Iterator[Arrivals]:
    arrivals = waiting()
    yield arrivals
    arrivals.close()


# After COMMIT


def test_nobody_listens_any_more_when_it_is_asked_after_commit(guest: Guest, arrivals: Arrivals) -> None:
    """The destination took COMMIT and is gone: only its word, or the operator's, lets the guest go here."""
    departure = Departure(guest)
    departure._probe = at(SourcePhase.COMMIT, lambda: leave(departure, arrivals))
    with pytest.raises(MoveUndecidedError, match="nobody listens"):
        departure.migrate(arrivals.address, LIMITS)
    assert departure.state == "undecided"
    assert not guest.running
    with pytest.raises(MoveUndecidedError, match="nobody listens"):
        departure.resolve()
    assert not guest.running


def test_a_paused_guest_stays_paused_by_its_operators_word(guest: Guest, arrivals: Arrivals) -> None:
    departure = Departure(guest)
    departure.paused = Pause(guest)
    departure._probe = at(SourcePhase.COMMIT, lambda: leave(departure, arrivals))
    with pytest.raises(MoveUndecidedError, match="nobody listens"):
        departure.migrate(arrivals.address, LIMITS)
    assert departure.state == "undecided"
    departure.force_resume()
    assert departure.state == "paused"
    assert not guest.running
    departure.paused.resume()
    assert guest.running


def test_a_guest_whose_disk_another_takes_at_the_last_moment_stays_paused(tmp_path: Path) -> None:
    """Neither side can have the disk, until its owner lets the guest go on here."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    attachments, thief = Attachments.parse([str(disk)]), DiskFile(DiskOption(str(disk)))
    arrivals = waiting(attachments=attachments)
    with Host(tb_origin=1 << 40, engine="concrete") as host:
        host.attachments = attachments
        guest = host.boot(SPINS, "8M")
        guest.resume()
        departure = Departure(guest)
        departure._probe = at(SourcePhase.COMMIT, thief.lock)
        with pytest.raises(MoveError, match="stays paused here"):
            departure.migrate(arrivals.address, LIMITS)
        assert departure.state == "paused"
        assert departure.paused is not None
        thief.close()
        departure.paused.resume()
        assert guest.running
    arrivals.close()


def leave(departure: Departure, arrivals: Arrivals) -> None:
    """Have nobody listen at the destination, and its connection to the source broken."""
    arrivals.close()
    assert departure._leaving is not None
    departure._leaving[1].interrupt()


def test_the_question_after_commit_is_not_answered_in_time(guest: Guest, arrivals: Arrivals) -> None:
    """What listens there now says nothing at all."""
    with socket.socket() as silent:
        departure = Departure(guest)

        def fall_silent() -> None:
            leave(departure, arrivals)
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            assert isinstance(arrivals.address, Address)
            silent.bind((arrivals.address.host, arrivals.address.port))
            silent.listen()
            assert departure._leaving is not None
            departure._leaving[1]._limits = replace(LIMITS, silence=0.3)

        departure._probe = at(SourcePhase.COMMIT, fall_silent)
        with pytest.raises(MoveUndecidedError, match=r"nothing more came for 0.3 s"):
            departure.migrate(arrivals.address, LIMITS)
    assert departure.state == "undecided"
    assert not guest.running


# Between READY and COMMIT


def test_no_guest_is_given_to_who_waits_no_more(guest: Guest, arrivals: Arrivals) -> None:
    """As when `receive` has waited for long enough: its process is about to end."""
    came = list[Arrived | None]()
    departure = Departure(guest)
    departure._probe = at(SourcePhase.DECIDE, lambda: came.append(arrivals.close()))
    with pytest.raises(MoveError, match="waits for no guest any more"):
        departure.migrate(arrivals.address, LIMITS)
    assert came == [None]
    assert guest.running


def test_a_guest_that_comes_while_its_destination_stops_waiting_is_here(guest: Guest) -> None:
    came = list[Arrived | None]()
    closing = threading.Thread(target=lambda: came.append(arrivals.close()))

    def close_meanwhile() -> None:
        closing.start()
        closing.join(0.2)

    arrivals = waiting(at(DestinationPhase.SET_TIME, close_meanwhile))
    Departure(guest).migrate(arrivals.address, LIMITS)
    closing.join()
    assert came[0] is not None
    came[0].start()[0].pause()
    came[0].host.close()


@pytest.mark.parametrize("phase", [SourcePhase.STOP, SourcePhase.SEND_STATE, SourcePhase.DECIDE])
def test_a_cancel_is_heard_until_commit(guest: Guest, arrivals: Arrivals, phase: SourcePhase) -> None:
    departure = Departure(guest)
    departure._probe = at(phase, departure.cancel)
    with pytest.raises(MoveCancelledError):
        departure.migrate(arrivals.address, LIMITS)
    assert guest.running
    assert arrivals.wait(0) is None


def test_a_cancel_at_commit_is_too_late(guest: Guest, arrivals: Arrivals) -> None:
    departure, late = Departure(guest), list[str]()

    def cancel() -> None:
        try:
            departure.cancel()
        except MachineError as error:
            late.append(str(error))

    departure._probe = at(SourcePhase.COMMIT, cancel)
    departure.migrate(arrivals.address, LIMITS)
    assert ["too late" in line for line in late] == [True]
    came = arrivals.wait(60)
    assert came is not None
    came.host.close()


# Time


def test_an_offset_that_is_set_during_the_move_is_the_one_that_counts() -> None:
    clock = VirtualTime()
    with Host(clock=clock, engine="concrete") as home, Host(clock=clock, engine="concrete") as away:
        guest = home.boot(SPINS, "1M")
        guest.run_for(Ticks(MS))
        there, record = move(
            guest,
            away,
            Link([Ticks(MS)]),
            probe=at(SourcePhase.STOP, lambda: guest.set("TB_OFFSET", 1 << 50)),
        )
        assert record.guest_tb_before >= 1 << 50
        assert there.timebase().value >= record.guest_tb_before
        assert abs(record.error_ticks) <= record.error_bound_ticks


@pytest.mark.parametrize("phase", [SourcePhase.DECIDE, SourcePhase.COMMIT])
@pytest.mark.parametrize("dwell", [0, 50 * MS, 3000 * MS])
def test_a_source_that_dwells_before_commit_says_so(phase: SourcePhase, dwell: int) -> None:
    """The guest's advance is right by the hosts' one clock, however long it took from READY to COMMIT."""
    clock = VirtualTime()
    with (
        Host(clock=clock, engine="concrete") as home,
        Host(clock=clock, tb_origin=12345, engine="concrete") as away,
    ):
        guest = home.boot(SPINS, "1M")
        guest.run_for(Ticks(MS))
        dwells = at(phase, lambda: clock.sleep_until(clock.ticks() + dwell))
        _, record = move(guest, away, Link([Ticks(MS)]), probe=dwells)
        assert record.elapsed_ticks >= dwell
        assert abs(record.error_ticks) <= record.error_bound_ticks <= GRANULE + 2 * MS


# Memory


@pytest.mark.parametrize("over_a_socket", [True, False])
def test_pages_that_become_zeros_are_zeros_at_the_destination(
    guest: Guest, arrivals: Arrivals, over_a_socket: bool
) -> None:
    """They were sent in the first round."""
    guest.memory.write(DATA, b"x" * (64 * PAGE_SIZE))
    clear = at(SourcePhase.STOP, lambda: guest.memory.write(DATA, bytes(32 * PAGE_SIZE)))
    if over_a_socket:
        Departure(guest, probe=clear).migrate(arrivals.address, LIMITS)
        came = arrivals.wait(60)
        assert came is not None
        with came.host:
            assert_half_clear(came.destination.guest)
    else:
        with Host(tb_origin=6, engine="concrete") as away:
            assert_half_clear(move(guest, away, probe=clear)[0])


def assert_half_clear(guest: Guest) -> None:
    assert guest.memory.read(DATA, 32 * PAGE_SIZE) == bytes(32 * PAGE_SIZE)
    assert guest.memory.read(DATA + 32 * PAGE_SIZE, 32 * PAGE_SIZE) == b"x" * (32 * PAGE_SIZE)


class Racing(bytearray):
    """The log's pages, while a vCPU stores: it marks the next of `marks` whenever the log is touched."""

    marks: Iterator[int] = iter(())
    marked: set[int]

    def store(self) -> None:
        page = next(self.marks, None)
        if page is not None:
            super().__setitem__(page, 1)
            self.marked.add(page)

    def find(self, *args: object) -> int:  # type: ignore[override]
        found = super().find(*args)  # type: ignore[arg-type]
        self.store()
        return found

    def __getitem__(self, at: object) -> object:  # type: ignore[override]
        found = super().__getitem__(at)  # type: ignore[index]
        self.store()
        return found

    def __setitem__(self, at: object, value: object) -> None:  # type: ignore[override]
        self.store()
        super().__setitem__(at, value)  # type: ignore[call-overload]
        self.store()


@given(st.sets(st.integers(0, 15)), st.lists(st.integers(0, 15), max_size=40))
def test_a_store_while_the_dirty_log_is_taken_is_in_this_answer_or_the_next(
    before: set[int], stores: list[int]
) -> None:
    log = DirtyLog(16)
    log.pages = pages = Racing(16)
    pages.marked = set(before)
    for page in before:
        bytearray.__setitem__(pages, page, 1)
    pages.marks = iter(stores)
    first = log.take()
    pages.marks = iter(())
    assert first == sorted(first)
    assert set(first) | set(log.take()) == pages.marked


# The next move


class Offers:
    """Counts the guests that are offered to a destination, and acts before the second one is considered."""

    def __init__(self, arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
        self.second = threading.Event()
        self._count = 0
        self._begin = arrivals._begin_taking
        monkeypatch.setattr(arrivals, "_begin_taking", self._counted)

    def _counted(self) -> bool:
        self._count += 1
        if self._count == 2:
            self.second.set()
        return self._begin()


def test_a_guest_that_is_offered_again_at_once_waits_for_the_end_of_its_last_move(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The destination is busy, and has not noticed yet that the source has given the move up."""
    departure = Departure(guest)

    def give_up_and_dawdle() -> None:
        if not offers.second.is_set():
            departure.cancel()
            assert offers.second.wait(60)
            # So long that whoever does not wait has been refused.
            time.sleep(0.1)

    arrivals = waiting(at(DestinationPhase.RECEIVE, give_up_and_dawdle))
    offers = Offers(arrivals, monkeypatch)
    with pytest.raises(MoveCancelledError):
        departure.migrate(arrivals.address, LIMITS)
    departure.migrate(arrivals.address, LIMITS)
    came = arrivals.wait(60)
    assert came is not None
    came.host.close()
    arrivals.close()


def test_a_guest_waits_for_the_place_of_one_that_has_ended(
    guest: Guest, arrivals: Arrivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = Offers(arrivals, monkeypatch)
    with Host(tb_origin=7, engine="concrete") as host:
        other = host.boot(SPINS, "8M")
        other.resume()
        Departure(guest).migrate(arrivals.address, LIMITS)
        came = arrivals.wait(60)
        assert came is not None
        first = came.start()[0]
        # While it runs nobody else may come, and need not wait to hear that.
        with pytest.raises(MoveError, match="another guest has come"):
            Departure(other).migrate(arrivals.address, LIMITS)
        first.stop()

        def make_room() -> None:
            assert offers.second.wait(60)
            time.sleep(0.1)
            came.host.close()
            arrivals.take_another()

        offers.second.clear()
        offers._count = 1
        making = threading.Thread(target=make_room)
        making.start()
        Departure(other).migrate(arrivals.address, LIMITS)
        making.join()
    after = arrivals.wait(60)
    assert after is not None
    after.host.close()


def test_a_guest_is_refused_at_once_while_another_one_is_coming(guest: Guest) -> None:
    said = list[str]()

    def offer_another() -> None:
        with Host(tb_origin=7, engine="concrete") as host:
            other = host.boot(SPINS, "8M")
            other.resume()
            with pytest.raises(MoveError, match="or is coming") as refusal:
                Departure(other).migrate(arrivals.address, LIMITS)
        said.append(str(refusal.value))

    arrivals = waiting(at(DestinationPhase.RECEIVE, offer_another))
    Departure(guest).migrate(arrivals.address, LIMITS)
    came = arrivals.wait(60)
    assert came is not None
    assert len(said) == 1
    came.host.close()
    arrivals.close()
