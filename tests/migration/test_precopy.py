"""Rounds of memory: whatever is written while they go, the destination has all of it in the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronovisor.machine.guest import Guest
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.memory.in_use import BLOCK, clear
from chronovisor.migration.errors import MoveCancelledError, MoveError, NotConvergingError
from chronovisor.migration.messages import Aborted, Memory, Message, Received, Round, Zeros
from chronovisor.migration.precopy import PATIENCE, MoveLimits, Precopy, Progress

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from fake_kvm import FakeVm, scripted_guest

SIZE = 3 * BLOCK
PAGES = SIZE // PAGE_SIZE
Writes = list[tuple[int, int, bool]]


class LoggingVm(FakeVm):
    """A machine of which nothing runs; its log is that of its memory."""

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__()
        self.memory = memory
        self.logging = False

    def set_user_memory_region(self, slot: int, flags: int, addr: int, memory: GuestMemory) -> None:
        self.logging = bool(flags)
        self.memory.dirty.take()

    def get_dirty_log(self, slot: int) -> list[int]:
        assert self.logging
        return self.memory.dirty.take()


class Far:
    """The destination's memory. `between` is called before each piece of it comes."""

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.memory = GuestMemory(SIZE)
        self.rounds: list[int] = []
        self.came = 0
        self.between = between

    def take(self, memory: Memory) -> None:
        for addr, run in memory:
            if isinstance(run, Zeros):
                clear(self.memory, addr, run.size)
            else:
                self.memory.write(addr, run)
                self.came += len(run)
            self.between()

    def ask(self, message: Message) -> Message:
        assert isinstance(message, Round)
        self.rounds.append(message.number)
        self.take(message.memory)
        return Received()


def near() -> Guest:
    guest, _ = scripted_guest([], memory=SIZE)
    guest.vm = LoggingVm(guest.memory)
    return guest


def precopy(guest: Guest, **limits: float) -> tuple[Precopy, threading.Event, list[Progress]]:
    cancelled, told = threading.Event(), list[Progress]()
    return Precopy(guest, MoveLimits(**limits), cancelled, told.append), cancelled, told  # type: ignore[arg-type]


def write(memory: GuestMemory, writes: Iterator[tuple[int, int, bool]], times: int) -> None:
    for _, (page, value, everything) in zip(range(times), writes, strict=False):
        memory.write(page * PAGE_SIZE, bytes([value]) * (PAGE_SIZE if everything else 1))


WRITES = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(0, 3), st.booleans()), max_size=60)


@settings(max_examples=60, deadline=None)
@given(WRITES, WRITES, st.sampled_from([1e-12, 1e-4, 3600]))
def test_in_the_end_the_destination_has_what_the_source_has(
    before: Writes, meanwhile: Writes, downtime: float
) -> None:
    guest = near()
    write(guest.memory, iter(before), len(before))
    writes = iter(meanwhile)
    far = Far(lambda: write(guest.memory, writes, 3))
    # From so little that every page written needs another round.
    copy, _, _ = precopy(guest, downtime=downtime)
    copy.run(far.ask)
    assert far.rounds == list(range(1, len(far.rounds) + 1))
    write(guest.memory, writes, 5)
    # It is stopped now.
    far.between = lambda: None
    far.take(copy.last())
    same = far.memory.read(0, SIZE) == guest.memory.read(0, SIZE)
    assert same
    copy.close()
    assert not guest.vm.logging  # type: ignore[attr-defined]
    assert copy.sent_bytes == far.came


def test_pages_that_became_zeros_are_named_and_unchanged_ones_are_not_sent_again() -> None:
    guest = near()
    guest.memory.write(0, b"x" * SIZE)
    far = Far()
    copy, _, told = precopy(guest)
    copy.run(far.ask)
    assert far.came == SIZE == copy.sent_bytes
    assert told[-1].remaining_bytes == 0
    guest.memory.write(5 * PAGE_SIZE, bytes(2 * PAGE_SIZE))
    guest.memory.write(9 * PAGE_SIZE, b"y")
    runs = list(copy.last())
    assert [(addr, len(run), isinstance(run, Zeros)) for addr, run in runs] == [
        (5 * PAGE_SIZE, 2 * PAGE_SIZE, True),
        (9 * PAGE_SIZE, PAGE_SIZE, False),
    ]
    assert copy.zero_bytes == 2 * PAGE_SIZE
    assert copy.rounds == 2


def test_a_guest_that_writes_as_fast_as_it_is_read_does_not_converge() -> None:
    guest = near()
    far = Far(lambda: guest.memory.write(0, b"x" * SIZE))
    guest.memory.write(0, b"y")
    copy, _, _ = precopy(guest, downtime=1e-9)
    with pytest.raises(NotConvergingError, match="does not converge, and the guest goes on here") as caught:
        copy.run(far.ask)
    assert "\n" not in str(caught.value)
    assert len(far.rounds) == 1 + 1 + PATIENCE - 1
    copy.close()
    assert not guest.vm.logging  # type: ignore[attr-defined]


def test_what_is_left_goes_in_the_downtime_where_it_fits() -> None:
    guest = near()
    guest.memory.write(0, b"x" * SIZE)
    far = Far(lambda: guest.memory.write(0, b"y" * BLOCK))
    copy, _, _ = precopy(guest, downtime=3600)
    copy.run(far.ask)
    assert far.rounds == [1]
    assert sum(len(run) for _, run in copy.last()) == BLOCK


@pytest.mark.parametrize("bandwidth", [None, 1 << 20])
def test_it_can_be_cancelled_in_the_middle_of_a_round(bandwidth: int | None) -> None:
    guest = near()
    guest.memory.write(0, b"x" * SIZE)
    far = Far(lambda: cancelled.set())
    copy, cancelled, _ = precopy(guest, bandwidth=bandwidth)  # type: ignore[arg-type]
    with pytest.raises(MoveCancelledError):
        copy.run(far.ask)
    assert far.came < SIZE


def test_a_bandwidth_is_kept_while_the_guest_runs_and_not_counted_into_the_rate() -> None:
    guest = near()
    guest.memory.write(0, b"x" * SIZE)
    asked: list[float] = []
    copy, cancelled, told = precopy(guest, bandwidth=1 << 40)
    waited = cancelled.wait

    def wait(timeout: float | None = None) -> bool:
        assert timeout is not None
        asked.append(timeout)
        return waited(0)

    cancelled.wait = wait  # type: ignore[method-assign]
    copy.run(Far().ask)
    assert asked == []
    copy, cancelled, told = precopy(guest, bandwidth=BLOCK)
    cancelled.wait = wait  # type: ignore[method-assign]
    copy.run(Far().ask)
    # At a mebibyte a second the last piece of three is due after three seconds; nobody slept.
    assert 2 < asked[-1] <= 3
    assert told[-1].sent_bytes == SIZE


def test_a_destination_that_gives_up_ends_it() -> None:
    copy, _, _ = precopy(near())
    with pytest.raises(MoveError, match="no more room"):
        copy.run(lambda message: Aborted("no more room"))
