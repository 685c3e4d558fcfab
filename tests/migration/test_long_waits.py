"""Waits of a source in which a destination in another process must not take it for lost."""

from __future__ import annotations

import threading

import pytest

from chronovisor.machine import Host
from chronovisor.migration import source as source_module
from chronovisor.migration.destination import Destination
from chronovisor.migration.errors import MoveError
from chronovisor.migration.link import Link
from chronovisor.migration.messages import Message, Round
from chronovisor.migration.precopy import MoveLimits
from chronovisor.migration.source import Source

STREAM = 0x7EED_0000_0001


@pytest.mark.parametrize("shares_clock", [False, True])
def test_a_destination_hears_of_a_source_that_waits(
    monkeypatch: pytest.MonkeyPatch, shares_clock: bool
) -> None:
    """Two signs of life while a disk is flushed, and two while the guest does not suspend itself, let each go
    on. In one process there is none.
    """
    monkeypatch.setattr(source_module, "_SIGN_OF_LIFE", 0.01)
    with Host(engine="concrete") as here, Host(engine="concrete", tb_origin=9 << 50) as there:
        guest = here.boot("demo-le.elf", "1M")
        guest.resume()
        destination = Destination(there, guest.console)
        flushing, flushed = threading.Event(), threading.Semaphore(0)
        signs: list[int] = []

        def flush() -> None:
            flushing.set()
            for _ in range(2):
                flushed.acquire(timeout=20 if not shares_clock else 0.1)

        def handle(message: Message) -> Message:
            answer = destination.handle(message)
            if flushing.is_set() and isinstance(message, Round):
                signs.append(message.number)
                flushed.release()
                if len(signs) >= 5 and guest.platform.suspension is not None:
                    # Of no effect before the guest was asked.
                    guest.platform.suspension.suspend()
            return answer

        monkeypatch.setattr(guest.platform.vio, "flush", flush)
        limits = MoveLimits(stream=STREAM, suspend=20 if not shares_clock else 0.5)
        channel = Link().connect(here.clock.source, handle)
        giving = Source(guest, channel, limits, shares_clock=shares_clock)
        if shares_clock:
            with pytest.raises(MoveError, match="did not suspend itself within"):
                giving.give_away()
            assert not signs
            return
        report = giving.give_away()
        # They are no rounds of memory.
        assert len(signs) >= 5
        assert set(signs) == {report.transfer.rounds - 1}
        assert destination.start(True).run_until("watching")
