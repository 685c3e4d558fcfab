"""One side of moves over TCP: in a process of its own or in this one, it takes a guest onto hosts of any
origin and gives it away, on the machine's real clock, and notes the moments at which it did.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from chronovisor.cli.demo.watched import IMAGE, SilentGuestError, ask_for_report, stamp
from chronovisor.machine.console import Console
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.rehearsal import rehearse
from chronovisor.migration.address import Place, parse_address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.errors import MoveError
from chronovisor.migration.outcomes import RememberedOutcomes
from chronovisor.migration.precopy import MoveLimits
from chronovisor.migration.source import Source
from chronovisor.migration.stream import Header
from chronovisor.migration.tcp import TcpChannel, TimeLimits
from chronovisor.timebase.types import GRANULE, Ticks

REAL_PATIENCE = Ticks.from_ns(30_000_000_000)
"""How long a guest may take over an answer on a machine that does other things too."""
_MOST_READINGS = 20
LIMITS = TimeLimits.of(30.0)
LARGEST = 1 << 30
"""Bytes of memory of a guest that comes."""
FILLED_FROM = 16 << 20
"""The address at which the memory begins that `boot` fills: above the guest's image."""


class Side:
    """Has at most one guest at a time. What it answers is made of JSON's types, so that a pipe can carry it.

    Moments are ticks of the machine's monotonic clock, the same in all its processes.
    """

    def __init__(self, engine: str = "auto", provider: str = "embedded") -> None:
        self._engine = engine
        self._provider = provider
        self._host: Host | None = None
        self._expected: _Expected | None = None
        self.guest: Guest | None = None
        """The guest that is here now."""

    def do(self, what: str, **arguments: Any) -> Any:
        """Call the method of that name: the way in which a side in another process is asked, too."""
        return getattr(self, what)(**arguments)

    def rehearse(self) -> None:
        """Run guests here for nothing, so that all their code is compiled before a move is timed."""
        rehearse("power9", self._engine)
        with Host(engine=self._engine) as host:
            guest = host.boot(IMAGE)
            ask_for_report(guest, REAL_PATIENCE)

    def boot(self, origin: int, offset: int, filled: int = 0) -> dict[str, int]:
        """Boot the guest on a host of this origin and let it run; `filled` bytes of its memory are not zero.

        The tick of its birth, and its timebase then.
        """
        self._host = host = self._host_of(origin)
        self.guest = guest = host.boot(IMAGE, tb_offset=offset)
        guest.memory.write(FILLED_FROM, os.urandom(filled))
        begun = host.clock.source.ticks()
        timebase = (begun + origin + guest.get("TB_OFFSET")) % (1 << 64)
        guest.resume()
        return {"tick": begun, "timebase": timebase}

    def expect(self, origin: int, address: str = "tcp:127.0.0.1:0", insecure: bool = False) -> str:
        """Wait, in the background, for a guest to arrive on a host of this origin; return the address."""
        at = parse_address(address, listen=True, insecure=insecure)
        self._expected = _Expected(lambda: self._host_of(origin), at)
        return str(self._expected.address)

    def taken(self) -> dict[str, Any]:
        """The guest that was expected runs here: its move's record, the tick from which it could run, the
        round trip of the exchange that committed the move, and its decrementer's deadline in guest time
        before it ran. MoveError if it did not arrive.
        """
        if self._expected is None:
            raise MoveError("no guest was expected")
        arrived, self.guest = self._expected.wait()
        deadline = self._expected.deadline
        self._host, self._expected = arrived.host, None
        return {
            "record": arrived.record.as_json(),
            "resumes_at": arrived.destination.resumes_at,
            "round_trip": arrived.destination.round_trip.value,
            "deadline": deadline,
        }

    def send(
        self, address: str, insecure: bool = False, downtime: float = MoveLimits().downtime
    ) -> dict[str, Any]:
        """Give the guest away to the side that waits there: its move's record, the tick of its stop, and its
        decrementer's deadline in guest time.
        """
        guest, host = self._present()
        channel = TcpChannel(parse_address(address, insecure=insecure), Header.of(guest), LIMITS)
        source = Source(guest, channel, MoveLimits(downtime), console_stays=True)
        try:
            record = source.give_away().record
        finally:
            channel.close()
        deadline = guest.get("DEC_EXPIRY")
        guest.leave(address)
        host.close()
        self.guest = self._host = None
        return {"record": record.as_json(), "stopped_at": source.stopped_at, "deadline": deadline}

    def read(self) -> dict[str, int]:
        """Have the guest read its timebase: that, and the machine's clock before and after.

        On a busy machine it may read several times, until the two are closer together than two offsets.
        """
        guest, _ = self._present()
        for _ in range(_MOST_READINGS):
            reading = stamp(guest, REAL_PATIENCE)
            if reading.after - reading.before < GRANULE:
                break
        guest.resume()
        return asdict(reading)

    def report(self) -> dict[str, Any]:
        """Have the guest report what it saw; it goes on."""
        guest, _ = self._present()
        report = ask_for_report(guest, REAL_PATIENCE)
        if report["expected"] != report["taken"]:
            # One that was due that very moment is there by the next report; a lost one never is.
            report = ask_for_report(guest, REAL_PATIENCE)
        guest.resume()
        return asdict(report)

    def close(self) -> None:
        """End the guest that is here, and listen no longer."""
        if self._expected is not None:
            self._expected.close()
        if self._host is not None:
            self._host.close()
        self.guest = self._host = self._expected = None

    def _host_of(self, origin: int) -> Host:
        return Host(tb_origin=origin, engine=self._engine, provider=self._provider)

    def _present(self) -> tuple[Guest, Host]:
        if self.guest is None or self._host is None:
            raise MoveError("the guest is not on this side")
        if self.guest.end is not None:
            raise SilentGuestError(f"the guest has ended: {self.guest.end.message}")
        return self.guest, self._host


class _Expected:
    """A guest that is to come; it runs as soon as it may, whether or not anybody asks for it yet."""

    def __init__(self, make_host: Callable[[], Host], address: Place) -> None:
        terms = Terms(
            lambda header: make_host(),
            Console(),
            RememberedOutcomes(),
            LARGEST,
            LIMITS,
        )
        self._arrivals = Arrivals(address, terms)
        self.address = self._arrivals.address
        self._arrived: tuple[Arrived, Guest] | None = None
        self._failure: Exception | None = None
        self.deadline = 0
        """Of its decrementer, in guest time, before it ran here."""
        self._thread = threading.Thread(target=self._take, name="expected", daemon=True)
        self._thread.start()

    def wait(self) -> tuple[Arrived, Guest]:
        """Return the guest once it runs; MoveError if it did not arrive."""
        self._thread.join(LIMITS.silence)
        self.close()
        if self._arrived is None:
            raise self._failure or MoveError(f"no guest came in {LIMITS.silence:g} s")
        return self._arrived

    def close(self) -> None:
        """Listen no longer."""
        self._arrivals.close()

    def _take(self) -> None:
        try:
            arrived = self._arrivals.wait()
            assert arrived is not None
            self.deadline = arrived.destination.guest.get("DEC_EXPIRY")
            self._arrived = arrived, arrived.destination.start(running=True)
        except Exception as error:
            self._failure = error
