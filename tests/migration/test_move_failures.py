"""A move that fails: before COMMIT the source goes on as if nothing had been; after it, one side runs."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chronovisor.kvm.errors import KvmError
from chronovisor.machine import vcpu_state
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.migration import restoration
from chronovisor.migration.errors import LinkLostError, MoveError, MoveRefusedError, MoveUndecidedError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Message
from chronovisor.migration.move import move
from chronovisor.timebase.clock import TickSource, VirtualTime
from chronovisor.timebase.types import GuestTime, Ticks

MS = 512_000

BEFORE_COMMIT = ("offer", "its answer", "state", "READY", "measurement", "READY again")
"""What is delivered before COMMIT, in order."""


class LosingLink(Link):
    """A link that loses its delivery number `lost`, and with `for_good` all after it."""

    def __init__(self, lost: int, for_good: bool = True) -> None:
        super().__init__([Ticks(MS)])
        self._lost = lost
        self._for_good = for_good
        self._delivery = -1

    def carry(self, message: Message, sent: int, source: TickSource) -> Message:
        self._delivery += 1
        if self._delivery == self._lost or (self._for_good and self._delivery > self._lost):
            raise LinkLostError(f"{type(message).__name__} was lost")
        return super().carry(message, sent, source)


@pytest.fixture
def clock() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def away(clock: VirtualTime) -> Host:
    return Host(clock=clock, tb_origin=999_999_999)


@pytest.fixture
def guest(clock: VirtualTime) -> Guest:
    guest = Host(clock=clock, tb_origin=1 << 55).boot("demo-le.elf", memory="1M", tb_offset=1 << 50)
    assert guest.run_until("watching")
    return guest


def everything(guest: Guest) -> tuple[Any, ...]:
    """All that a failed move must leave alone."""
    state = guest.machine_state
    return (
        [vcpu_state.save(vcpu) for vcpu in guest.vcpus],
        bytes(guest.memory.view),
        # It goes on, by the guest's own time.
        replace(state, time_of_day=TimeOfDay(GuestTime(0), state.time_of_day.at(GuestTime(0)))),
        guest.get("TB_OFFSET"),
        guest.ideal,
    )


def assert_goes_on(guest: Guest) -> None:
    guest.console.type("r")
    assert guest.run_until("memory=intact", Ticks(1000 * MS))
    assert " back=0 " in guest.console_text
    assert " lost=0 " in guest.console_text


@pytest.mark.parametrize("lost", range(6), ids=BEFORE_COMMIT)
def test_a_link_lost_before_commit_leaves_the_guest_where_it_was(guest: Guest, away: Host, lost: int) -> None:
    before = everything(guest)
    with pytest.raises(MoveError) as caught:
        move(guest, away, LosingLink(lost))
    assert "\n" not in str(caught.value)
    assert everything(guest) == before
    assert away.guests == []
    assert_goes_on(guest)


@pytest.mark.parametrize("lost", range(6), ids=BEFORE_COMMIT)
def test_a_guest_that_ran_runs_on(lost: int) -> None:
    hosts = [Host(clock="real"), Host(clock="real", tb_origin=1 << 50)]
    with hosts[0].boot("demo-le.elf", memory="1M") as guest:
        guest.resume()
        with pytest.raises(MoveError):
            move(guest, hosts[1], LosingLink(lost))
        assert guest.running


def fail(number: int = errno.EIO) -> Callable[..., None]:
    def failing(*_: object, **__: object) -> None:
        raise KvmError(number, "a register that will not")

    return failing


@pytest.mark.parametrize(
    ("where", "name"),
    [(vcpu_state, "save"), (vcpu_state, "load"), (restoration, "write_register")],
    ids=["reading at the source", "setting at the destination", "setting the time at the destination"],
)
def test_a_register_that_fails_leaves_the_guest_where_it_was(
    guest: Guest, away: Host, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    before = everything(guest)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail())
        with pytest.raises(MoveError, match="a register that will not"):
            move(guest, away, Link([Ticks(MS)]))
    assert everything(guest) == before
    assert away.guests == []
    assert_goes_on(guest)


def test_an_offset_that_the_destination_does_not_keep_is_noticed(
    guest: Guest, away: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(guest)
    with monkeypatch.context() as patch:
        patch.setattr(restoration, "read_register", lambda *_: 0)
        with pytest.raises(MoveError, match="was set and 0x0 kept"):
            move(guest, away, Link([Ticks(MS)]))
    assert everything(guest) == before
    assert_goes_on(guest)


def test_an_interrupted_move_leaves_the_guest_running_where_it_was(
    guest: Guest, away: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vcpu_state, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move(guest, away)
    assert_goes_on(guest)


def test_a_commit_that_is_lost_leaves_the_guest_paused_until_the_destination_answers(
    guest: Guest, away: Host
) -> None:
    with pytest.raises(MoveUndecidedError) as caught:
        move(guest, away, LosingLink(6, for_good=False))
    assert not guest.running
    assert "\n" not in str(caught.value)
    with pytest.raises(MoveError, match="had not come"):
        caught.value.ask()
    assert away.guests == []
    assert_goes_on(guest)


def test_an_acknowledgement_that_is_lost_can_be_asked_for(guest: Guest, away: Host) -> None:
    before = guest.timebase()
    with pytest.raises(MoveUndecidedError) as caught:
        move(guest, away, LosingLink(7, for_good=False))
    # The guest is the destination's; here it never runs again by itself.
    assert not guest.running
    record = caught.value.ask().record
    assert record.guest_tb_after >= before.value
    (moved,) = away.guests
    assert moved.timebase().value >= record.guest_tb_after
    assert_goes_on(moved)


def test_a_destination_that_stays_silent_leaves_the_guest_paused(guest: Guest, away: Host) -> None:
    with pytest.raises(MoveUndecidedError) as caught:
        move(guest, away, LosingLink(7))
    for _ in range(2):
        with pytest.raises(MoveUndecidedError):
            caught.value.ask()
        assert not guest.running


def test_a_second_move_after_one_that_failed(guest: Guest, away: Host) -> None:
    with pytest.raises(MoveError):
        move(guest, away, LosingLink(3))
    moved, record = move(guest, away)
    assert abs(record.error_ticks) <= record.error_bound_ticks
    assert_goes_on(moved)


def test_a_guest_of_two_times_is_not_moved(clock: VirtualTime, away: Host) -> None:
    guest = Host(clock=clock, cores=2).boot("demo-le.elf", memory="1M", smp=2)
    guest.set("TB_OFFSET", 1 << 30, vcpu=1)
    with pytest.raises(MoveRefusedError, match="different timebase offsets"):
        move(guest, away)


def test_a_log_of_dirty_pages_that_cannot_be_switched_off_leaves_the_guest_running_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In real time, where memory goes while the guest runs; the log is switched off before COMMIT leaves."""

    def log_dirty_pages(guest: Guest, wanted: bool) -> None:
        if not wanted:
            raise KvmError(errno.EIO, "no")
        switch(guest, wanted)

    switch = Guest.log_dirty_pages
    monkeypatch.setattr(Guest, "log_dirty_pages", log_dirty_pages)
    with Host() as home, Host(tb_origin=1) as away:
        guest = home.boot("demo-le.elf", memory="1M")
        guest.resume()
        with pytest.raises(MoveError, match="goes on here"):
            move(guest, away)
        assert guest.running
        assert not away.guests
