"""A move's stream in each format that was ever written and is still read, as files.

A stream of a format is written once and never changed. If the current format's file no longer matches what is
written, the format has changed: give it a new number, keep the old file, and read both.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from move_streams import MEMORY, RUNS, commit, filled_memory, offer, read_move, state, whole_move

from chronovisor.machine import Console, Host
from chronovisor.memory import GuestMemory
from chronovisor.migration.address import Address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.messages import Refused, State
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.stream import HEADER_SIZE, OLDEST_VERSION, VERSION, Reader
from chronovisor.migration.tcp import SocketPipe

GOLDEN = Path(__file__).parent / "golden"


def stream(version: int) -> bytes:
    return (GOLDEN / f"stream-{version}.bin").read_bytes()


def test_what_is_written_is_the_current_format() -> None:
    assert whole_move() == stream(VERSION)


@pytest.mark.parametrize("version", range(OLDEST_VERSION, VERSION + 1))
def test_each_format_is_read(version: int) -> None:
    memory = GuestMemory(MEMORY)
    said, stopped, committed = read_move(stream(version), memory)
    assert isinstance(stopped, State)
    expected, stands = offer(), replace(state(memory, []), memory=())
    if version < 5:
        # The guests of that time had no virtual devices.
        expected = replace(expected, devices=())
        stands = replace(stands, machine=replace(stands.machine, devices=()))
    assert said == expected
    assert replace(stopped, memory=()) == stands
    assert committed == commit()
    sent = filled_memory()
    assert RUNS
    assert memory.view == sent.view


@pytest.fixture
def arrivals() -> Iterator[Arrivals]:
    terms = Terms(lambda header: Host(cores=2, engine="concrete"), Console(), RememberedOutcomes(), 64 << 20)
    arrivals = Arrivals(Address("127.0.0.1", 0), terms)
    yield arrivals
    arrivals.close()


def test_a_source_of_the_format_before_is_answered_in_it(arrivals: Arrivals) -> None:
    assert isinstance(arrivals.address, Address)
    data = stream(OLDEST_VERSION)
    size = int.from_bytes(data[HEADER_SIZE + 8 : HEADER_SIZE + 12], "big")
    with socket.create_connection((arrivals.address.host, arrivals.address.port)) as peer:
        # The header and its first message, the offer.
        peer.sendall(data[: HEADER_SIZE + 32 + size])
        reader = Reader(SocketPipe(peer, 10))
        reader.header()
        assert reader.version == OLDEST_VERSION
        answer = reader.message()
        assert isinstance(answer, Refused)
        assert "cannot keep SDR1" in answer.reason
