"""Listens to the guest's console: each line with the moment at which it came, by the machine's clock."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chronovisor.cli.demo.linux.guest import CPUS, Wakings, wakings
from chronovisor.report.clock_check.check import ClockCheck
from chronovisor.report.clock_check.lines import Sample, parse
from chronovisor.report.clock_check.report import Report

_UPTIME: Final = re.compile(rb"uptime: (\d+\.\d+) (\d+\.\d+)")
_POLL: Final = 0.01


@dataclass(frozen=True, slots=True)
class Uptime:
    """What the guest answered to a question for its uptime."""

    at_ns: int
    """When the answer came, by the machine's monotonic clock."""
    up: float
    """The guest's CLOCK_BOOTTIME, in seconds."""
    idle: float
    """How long its CPUs were idle, as it counts that, in seconds."""


class Listener:
    """Takes a console's bytes, from any thread."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.uptimes: list[Uptime] = []
        self._check = ClockCheck()
        self._checking = True
        self._rest = b""
        self._lags: list[list[int]] = [[]]
        self._moving = False
        self._lock = threading.Lock()

    def take(self, data: bytes) -> None:
        """Take what the guest printed."""
        with self._lock:
            now = time.monotonic_ns()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._line(line.rstrip(b"\r"), now)

    def moving(self) -> None:
        """The guest is about to move: what it prints from now on says nothing about its stay here."""
        with self._lock:
            self._moving = True

    def moved(self) -> None:
        """The guest has moved: its next stay begins."""
        with self._lock:
            self._moving = False
            self._lags.append([])

    def wait(self, samples: int, seconds: float, ended: Callable[[], bool] = lambda: False) -> bool:
        """Wait until this stay has so many samples; False if they do not come within `seconds`, or the guest
        has `ended`.
        """
        deadline = time.monotonic() + seconds
        while len(self._lags[-1]) < samples:
            if time.monotonic() > deadline or ended():
                return False
            time.sleep(_POLL)
        return True

    @property
    def text(self) -> str:
        """All whole lines."""
        return b"\n".join(self.lines).decode(errors="replace")

    @property
    def wakings(self) -> list[Wakings]:
        """What `cyclictest` reported so far."""
        return wakings(self.text)

    def wait_for_wakings(self, seconds: float) -> bool:
        """Wait for the report of `cyclictest`, a line for each CPU; False if none comes in `seconds`."""
        deadline = time.monotonic() + seconds
        while len(self.wakings) < CPUS:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    @property
    def errors_ms(self) -> list[float]:
        """The guest's CLOCK_MONOTONIC less the machine's in ms: 0 before the first move, then after each.

        The line that came fastest in each stay decides: its delay is the only error of the measurement.
        """
        fastest = [min(lags) for lags in self._lags if lags]
        return [(fastest[0] - lag) / 1e6 for lag in fastest]

    def report(self) -> Report:
        """Return what the checker found until now. Lines that follow are listened to, and checked no more."""
        with self._lock:
            self._checking = False
            return self._check.report()

    def _line(self, line: bytes, now: int) -> None:
        self.lines.append(line)
        if self._checking:
            self._check.line(line, now)
        if answered := _UPTIME.search(line):
            self.uptimes.append(Uptime(now, float(answered[1]), float(answered[2])))
        said = parse(line)
        if isinstance(said, Sample) and not self._moving:
            self._lags[-1].append(now - said.clocks["mono"])
