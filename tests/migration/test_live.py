"""Guests that write their memory while it goes over, on the engine that they run on in earnest."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from chronovisor.machine import Console
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.destination import Destination
from chronovisor.migration.link import Link
from chronovisor.migration.precopy import MoveLimits, Progress
from chronovisor.migration.source import Source
from chronovisor.migration.transfer import MoveReport
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import GRANULE, Ticks

MIB = 1 << 20
FILLED = 8
"""Mebibytes that the guest writes to, from 64 MiB on."""


def load(engine: str, rate: int, filled: int = FILLED) -> Guest:
    """The guest that writes so many million bytes of pages a second; it runs."""
    console = Console()
    ready = threading.Event()
    console.watch(lambda: ready.set() if "ready" in console.text else None)
    guest = Host(tb_origin=random.Random(1).getrandbits(64), engine=engine).boot(
        "load-le.elf", (64 + FILLED) * MIB, console=console
    )
    guest.resume()
    console.type(f"{filled} {rate}\n")
    assert ready.wait(120)
    return guest


def bring_over(guest: Guest, engine: str, seed: int, limits: MoveLimits) -> tuple[Destination, MoveReport]:
    away = Host(tb_origin=random.Random(seed).getrandbits(64), engine=engine)
    destination = Destination(away, guest.console)
    channel = Link([Ticks(1000)]).connect(RealTime(), destination.handle)
    return destination, Source(guest, channel, limits).give_away()


def more_than(text: str) -> Callable[[str], bool]:
    return lambda now: len(now) > len(text) + 200


@pytest.mark.parametrize("engine", ["auto", "concrete"])
def test_what_a_guest_writes_meanwhile_is_there(engine: str) -> None:
    rate, filled = (200, FILLED) if engine == "auto" else (1, 0)
    guest = load(engine, rate, filled)
    for hop in range(4):
        # So little downtime that there are several rounds, and one that always suffices.
        limits = MoveLimits(downtime=1 if hop % 2 else 0.02)
        destination, report = bring_over(guest, engine, hop, limits)
        assert report.transfer.rounds >= 2
        assert not guest.running
        same = guest.memory.view == destination.guest.memory.view
        assert same
        record = report.record
        assert abs(record.error_ticks) <= record.error_bound_ticks
        assert abs(record.rounding_ticks) <= GRANULE // 2
        parts = report.transfer
        assert min(parts.last_round_ns, parts.device_state_ns, parts.duration_ns) > 0
        total = parts.last_round_ns + parts.device_state_ns + parts.handshake_ns + record.wait_ns
        assert total == record.downtime_ns
        guest.leave("elsewhere")
        guest.close()
        guest = destination.start(running=True)
        assert guest.run_until(more_than(guest.console.text), Ticks(60 * 512_000_000))
        guest.resume()
    guest.pause()
    times = [int(line.split()[0], 16) for line in guest.console_text.split("ready\n")[1].splitlines()[:-1]]
    assert times == sorted(times)
    guest.close()


def test_a_guest_that_is_paused_goes_in_one_round_and_stays_paused() -> None:
    guest = load("concrete", 0, 0)
    guest.pause()
    destination, report = bring_over(guest, "concrete", 1, MoveLimits())
    assert report.transfer.rounds == 1
    same = guest.memory.view == destination.guest.memory.view
    assert same
    assert not destination.start(running=False).running


def test_progress_is_told() -> None:
    guest = load("concrete", 0, 0)
    guest.memory.write(66 * MIB, b"x" * MIB)
    told: list[Progress] = []
    away = Host(engine="concrete")
    destination = Destination(away, guest.console)
    source = Source(guest, Link([Ticks(0)]).connect(RealTime(), destination.handle), tell=told.append)
    report = source.give_away()
    assert told[0].remaining_bytes >= MIB // 2
    assert [p.sent_bytes for p in told] == sorted(p.sent_bytes for p in told)
    assert told[-1].sent_bytes == report.transfer.sent_bytes
    assert told[-1].round == report.transfer.rounds
    assert report.transfer.memory_bytes == guest.memory.size
