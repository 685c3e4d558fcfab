"""A guest that has moved away leaves none of its memory behind, however often guests come and go."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import chronovisor as cv
from chronovisor.memory import GuestMemory

SIZE = 0x31_0000
"""Bytes that no other test's guest has."""
FILLED = 24 << 20


def kept() -> int:
    gc.collect()
    return sum(isinstance(found, GuestMemory) and found.size == SIZE for found in gc.get_objects())


def resident() -> int:
    """Bytes of this process that are in the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("engine", ["concrete", "threaded"])
def test_hosts_keep_no_memory_of_guests_that_moved_away(engine: str) -> None:
    clock = cv.VirtualTime()
    hosts = [cv.Host(clock=clock, tb_origin=origin, engine=engine) for origin in (0, 10**18)]
    guest = hosts[0].boot("hello-le.elf", SIZE)
    for hop in range(1, 7):
        guest, _ = cv.move(guest, hosts[hop % 2])
    # Each host keeps the guest that left it last until the next one comes.
    assert 1 <= kept() <= 2
    for host in hosts:
        host.close()


@pytest.mark.parametrize("engine", ["concrete", "auto"])
def test_moves_do_not_fill_the_machine(engine: str) -> None:
    hosts = [cv.Host(tb_origin=origin, engine=engine) for origin in (0, 10**18)]
    guest = hosts[0].boot("demo-le.elf", "32M")
    guest.memory.write(4 << 20, os.urandom(FILLED))
    guest.resume()
    guest, _ = cv.move(guest, hosts[1])
    before = resident()
    for hop in range(8):
        guest, _ = cv.move(guest, hosts[hop % 2])
    assert resident() - before < 4 * FILLED
    for host in hosts:
        host.close()
