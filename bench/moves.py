"""What a move costs, and what it does to time: a guest moves between two processes, over loopback.

The true time is this machine's monotonic clock, which both processes read. It does not depend on what the
two sides of a move tell each other. The peer is a bare socket that carries as many bytes as the guest has
in use.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from chronovisor.cli.demo.far_side import FarSide
from chronovisor.cli.demo.side import Side
from chronovisor.cli.demo.two_processes import move_over
from chronovisor.cli.demo.watched import StampedReading
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import FREQUENCY, GRANULE, MASK64

MEMORY = "64M"
FILLED = 8 << 20
"""Bytes of its memory that are not zero."""
MOVES = 200
STAY = 0.01
"""Seconds that the guest runs on each host, at least; at most twice that."""
SEED = 1


@dataclass(frozen=True)
class Moves:
    """The measurements: the records with their true times, and the guest's own readings."""

    records: list[MoveRecord]
    round_trips_ms: list[float]
    outside: int
    """The number of errors over their stated bounds."""
    loose: int
    """The number of bounds over 32.8 ms plus half the round trip plus two ticks."""
    misread: int
    """The number of the guest's readings that differ from the records."""
    lost: int
    """The number of decrementer interrupts."""
    steps_back: int
    largest_step_ms: float
    """That the guest read: its longest move, or this machine doing other things."""
    bare_ms: list[float]
    """The peer: the same number of bytes over a bare socket on loopback."""

    @property
    def downtimes_ms(self) -> list[float]:
        """Without the wait for the rounding."""
        return [(record.downtime_ns - record.wait_ns) / 1e6 for record in self.records]

    @property
    def waits_ms(self) -> list[float]:
        """For the rounding."""
        return [record.wait_ns / 1e6 for record in self.records]

    @property
    def worst_ratio(self) -> float:
        """The largest ratio of an error to its stated bound. Over 1 would break the promise."""
        return max(abs(record.error_ticks) / record.error_bound_ticks for record in self.records)

    @property
    def largest_rounding_ms(self) -> float:
        """The furthest that roundings brought the guest's time from its ideal."""
        return max(abs(record.rounding_ticks) for record in self.records) * 1000 / FREQUENCY

    def lines(self) -> list[tuple[str, str]]:
        """The rows to print: a name, and a value."""
        waits = self.waits_ms
        return [
            ("downtime without the wait", _spread(self.downtimes_ms)),
            (f"{FILLED >> 20} MiB over a bare socket", _spread(self.bare_ms)),
            ("wait for the rounding", f"{_spread(waits)}; {sum(w > 0 for w in waits)} moves of {len(waits)}"),
            ("round trip of the exchange", _spread(self.round_trips_ms)),
            (
                "errors within their bounds",
                f"{len(self.records) - self.outside} of {len(self.records)}, "
                f"worst ratio {self.worst_ratio:.4f}; {self.loose} bounds too loose",
            ),
            ("largest rounding", f"{self.largest_rounding_ms:.3f} ms (limit 16.384)"),
            (
                "the guest's own word",
                f"{self.steps_back} steps back, largest step {self.largest_step_ms:.2f} ms "
                f"(its longest move: {max(r.advance.value for r in self.records) * 1000 / FREQUENCY:.2f}), "
                f"{self.lost} timers lost, {self.misread} readings elsewhere than the records say",
            ),
        ]


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ms median, {max(values):.2f} ms max"


def measure(moves: int = MOVES, engine: str = "auto") -> Moves:
    """Move the guest `moves` times, each time onto a host of another origin and phase. Read its reports."""
    chance = random.Random(SEED)
    near = Side(engine)
    with FarSide(engine) as far:
        try:
            far.do("rehearse")
            near.rehearse()
            near.boot(chance.getrandbits(64), chance.getrandbits(63), FILLED)
            sides: list[Side | FarSide] = [near, far]
            records: list[MoveRecord] = []
            round_trips: list[float] = []
            misread = loose = 0
            for number in range(moves):
                time.sleep(STAY * (1 + chance.random()))
                source, destination = sides[number % 2], sides[(number + 1) % 2]
                passage = move_over(source, destination, "", "", chance.getrandbits(64))
                hop, record, round_trip = passage.hop, passage.hop.record, passage.round_trip
                records.append(record)
                round_trips.append(round_trip.ns / 1e6)
                loose += record.error_bound_ticks > GRANULE + round_trip.value // 2 + 2
                reading = StampedReading(**destination.do("read"))
                misread += not reading.fits((record.guest_tb_after - hop.resumed_at) & MASK64)
            numbers = sides[moves % 2].do("report")["numbers"]
        finally:
            near.close()
    return Moves(
        records,
        round_trips,
        sum(abs(record.error_ticks) > record.error_bound_ticks for record in records),
        loose,
        misread,
        numbers["lost"],
        numbers["back"] + numbers["back_between"],
        numbers["largest_step"] * 1000 / FREQUENCY,
        bare(FILLED),
    )


def bare(size: int, times: int = 20) -> list[float]:
    """Milliseconds to send `size` bytes to a thread that answers with one byte when it has all of them."""
    data, took = os.urandom(size), []
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as sender:
        receiver, _ = listener.accept()
        with receiver:
            thread = threading.Thread(target=_take, args=(receiver, size, times), daemon=True)
            thread.start()
            for _ in range(times):
                begun = time.monotonic()
                sender.sendall(data)
                sender.recv(1)
                took.append((time.monotonic() - begun) * 1000)
            thread.join()
    return took


def _take(receiver: socket.socket, size: int, times: int) -> None:
    buffer = bytearray(size)
    for _ in range(times):
        left = size
        while left:
            left -= receiver.recv_into(buffer, left)
        receiver.sendall(b".")


def show(console: Console) -> None:
    """Measure and print."""
    title = (
        f"{MOVES} moves of a guest of {MEMORY}, {FILLED >> 20} MiB of it not zero, "
        "between two processes over loopback"
    )
    table = Table(title=title, title_justify="left", show_header=False)
    for what, how_much in measure().lines():
        table.add_row(what, how_much)
    console.print(table)
