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
from move_streams import LATER, MEMORY, RUNS, commit, filled_memory, offer, read_move, state, whole_move

from chronovisor.machine import Console, Host
from chronovisor.machine.services import NO_TRANSLATION
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.memory import GuestMemory
from chronovisor.migration.address import Address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.messages import Accepted, State
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.stream import HEADER_SIZE, OLDEST_VERSION, VERSION, Reader
from chronovisor.migration.tcp import SocketPipe

GOLDEN = Path(__file__).parent / "golden"


def stream(version: int) -> bytes:
    return (GOLDEN / f"stream-{version}.bin").read_bytes()


def test_what_is_written_is_the_current_format() -> None:
    assert whole_move() == stream(VERSION)


def _without_controller(vcpu: VcpuState) -> VcpuState:
    return replace(vcpu, one_regs={n: v for n, v in vcpu.one_regs.items() if n not in LATER})


@pytest.mark.parametrize("version", range(OLDEST_VERSION, VERSION + 1))
def test_each_format_is_read(version: int) -> None:
    memory = GuestMemory(MEMORY)
    said, stopped, committed = read_move(stream(version), memory)
    expected = offer()
    if version == 2:
        # It had neither, …
        expected = replace(expected, token=b"", registers=(), sregs=None)
    assert said == expected
    assert isinstance(stopped, State)
    # … nor a guest that is paused.
    assert stopped.paused_at is None
    expected_state = state(memory, [])
    if version == 2:
        # … nor one that translates or has an interrupt controller.
        expected_state = replace(
            expected_state,
            machine=replace(
                expected_state.machine,
                translation=NO_TRANSLATION,
                sources=(),
                console_signals=True,
                nvram=b"",
                joined=(),
            ),
            vcpus=tuple(map(_without_controller, expected_state.vcpus)),
        )
    assert replace(stopped, memory=()) == replace(expected_state, memory=())
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
    data = stream(2)
    size = int.from_bytes(data[HEADER_SIZE + 8 : HEADER_SIZE + 12], "big")
    with socket.create_connection((arrivals.address.host, arrivals.address.port)) as peer:
        # The header and its first message, the offer.
        peer.sendall(data[: HEADER_SIZE + 32 + size])
        reader = Reader(SocketPipe(peer, 10))
        reader.header()
        assert reader.version == 2
        assert reader.message() == Accepted()
