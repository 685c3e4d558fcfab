"""Linux on our hosts: it boots, and moves between hosts whose timebases are years apart."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from chronovisor.cli.demo.linux.guest import ASK, COMMAND_LINE, CPUS, MEMORY, REPORT
from chronovisor.cli.demo.linux.journey import BOOT_SECONDS, SAMPLES, LinuxJourney
from chronovisor.cli.demo.linux.listener import Listener, Uptime
from chronovisor.cli.demo.travel import choose_origins
from chronovisor.cli.demo.watched import SilentGuestError
from chronovisor.machine.console import Console
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GRANULE, MASK64

PATIENCE: Final = 180.0
"""Seconds in which a guest that moved must print its samples; a busy machine takes many."""
SET_BACK: Final = 64 * GRANULE
"""By how many ticks the counter-example sets the timebase back: 2.1 s."""
_ASKED: Final = 0.2
"""Seconds from one question for the uptime to the next."""
_WATCHED: Final = (5, 18)
"""How many answers are awaited before the timebase is set back, and how many questions asked after that."""


@dataclass(frozen=True, slots=True)
class SetBack:
    """The counter-example: what a guest says whose timebase was set back."""

    at_ns: int
    """When it was set back, by the machine's monotonic clock."""
    uptimes: list[Uptime]
    backs: int
    """Clocks that the checker saw go back."""

    @property
    def leap_seconds(self) -> float:
        """The furthest that the guest's uptime was from its course before; positive is ahead."""
        before = [u for u in self.uptimes if u.at_ns <= self.at_ns]
        lag = min(u.at_ns / 1e9 - u.up for u in before)
        return max((u.up - (u.at_ns / 1e9 - lag) for u in self.uptimes), key=abs)


class LinuxOnOurHosts:
    """A Debian guest that goes from host to host. A context: the hosts are closed with it."""

    def __init__(self, kernel: Path, initramfs: bytes, chance: random.Random) -> None:
        self._kernel, self._initramfs, self._chance = kernel, initramfs, chance
        clock = RealTime()
        self.listener = Listener()
        self.hosts = [
            Host(clock=clock, tb_origin=origin, cores=CPUS) for origin in choose_origins(chance).values()
        ]
        # One for all moves: a new one would have the same flights each time, and so the same error.
        self._link = Link()
        self.guest: Guest | None = None
        self.records: list[MoveRecord] = []
        self.boot_seconds = 0.0

    def __enter__(self) -> LinuxOnOurHosts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for host in self.hosts:
            host.close()

    def boot(self) -> None:
        """Boot, and wait for the checker's first samples; SilentGuestError if they do not come."""
        begun = time.monotonic()
        self.guest = self.hosts[0].boot(
            self._kernel,
            MEMORY,
            smp=CPUS,
            append=COMMAND_LINE,
            console=Console(self.listener.take),
            initrd=self._initramfs,
        )
        self.guest.resume()
        self._wait(BOOT_SECONDS)
        self.boot_seconds = time.monotonic() - begun

    def travel(self, moves: int, after_each: Callable[[], None] = lambda: None) -> None:
        """Move to another host, chosen by lot, and let it print samples there, so many times."""
        assert self.guest is not None
        for _ in range(moves):
            there = self._chance.choice([h for h in self.hosts if self.guest not in h.guests])
            self.listener.moving()
            self.guest, record = move(self.guest, there, self._link)
            self.listener.moved()
            self.records.append(record)
            self._wait(PATIENCE)
            after_each()

    def set_back(self) -> SetBack:
        """Set the timebase back, as no move of ours does, and ask the guest for its uptime meanwhile."""
        assert self.guest is not None
        before, after = _WATCHED
        backs = self._backs
        deadline = time.monotonic() + PATIENCE
        while len(self.listener.uptimes) < before:
            if time.monotonic() > deadline:
                raise SilentGuestError("Linux does not answer on its console")
            self._ask(1)
        self.guest.pause()
        for vcpu in range(CPUS):
            offset = self.guest.get("TB_OFFSET", vcpu)
            self.guest.set("TB_OFFSET", (offset - SET_BACK) & MASK64, vcpu)
        at = time.monotonic_ns()
        self.guest.resume()
        self._ask(after)
        return SetBack(at, list(self.listener.uptimes), self._backs - backs)

    @property
    def _backs(self) -> int:
        return sum(b" back seq=" in line for line in self.listener.lines)

    def journey(self) -> LinuxJourney:
        """Return what came of the moves, and have `cyclictest` report. No more of them can follow."""
        assert self.guest is not None
        self.guest.console.type(REPORT)
        self.listener.wait_for_wakings(PATIENCE)
        return LinuxJourney(
            self.boot_seconds,
            self.listener.errors_ms,
            [record.downtime_ns / 1e6 for record in self.records],
            self.listener.report(),
            self.listener.wakings,
            self.records,
        )

    def _ask(self, times: int) -> None:
        assert self.guest is not None
        for _ in range(times):
            self.guest.console.type(ASK)
            time.sleep(_ASKED)

    def _wait(self, seconds: float) -> None:
        assert self.guest is not None
        if not self.listener.wait(SAMPLES, seconds, lambda: self.guest is None or self.guest.end is not None):
            end = self.guest.end.message if self.guest.end else f"nothing more for {seconds:g} s"
            raise SilentGuestError(f"Linux: {end}; its console ends with: {self.listener.text[-300:]}")
