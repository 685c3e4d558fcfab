"""The demonstration's guest, as the acts talk to it, and the events of its host with their moments."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from chronovisor.machine.files import SHIPPED
from chronovisor.machine.guest import Guest
from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.trace import Event, OffsetApplied
from chronovisor.timebase.types import MASK64, HostTime, Ticks

IMAGE = SHIPPED / "demo-le.elf"
"""The demonstration's guest: guests/demo.c, compiled by GCC, little-endian."""
ENGINE = "concrete"
"""The reference. Compiling native code would take longer than it could save here."""
PATIENCE = Ticks.from_ns(400_000_000)
"""How long the guest may take for an answer, by its own clock, before it counts as silent."""

_REPORT = re.compile(r"^guest: (readings=.*)\n", re.MULTILINE)
_TIMEBASE = re.compile(r"^([0-9a-f]{16})\n", re.MULTILINE)


class SilentGuestError(Exception):
    """The guest did not answer, so something that the demonstration needs does not work."""


@dataclass(frozen=True, slots=True)
class GuestReport:
    """What the guest reports; all but `text` in ticks or counts."""

    text: str
    """The line, as the guest printed it."""
    numbers: dict[str, int]
    memory_intact: bool

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    @property
    def backward_steps(self) -> int:
        """How often it read less than it had read before, on one vCPU or from one to another."""
        return self["back"] + self["back_between"]


@dataclass(frozen=True, slots=True)
class StampedReading:
    """A reading by the guest, with the tick of its host's clock before the request and after the answer."""

    before: int
    timebase: int
    after: int

    def fits(self, lead: int) -> bool:
        """Whether a timebase that is `lead` ticks (64-bit) ahead of the clock can have read this."""
        return (self.timebase - lead - self.before) & MASK64 <= self.after - self.before


def ask_for_report(guest: Guest, patience: Ticks = PATIENCE) -> GuestReport:
    """Have the guest report what it saw until now; the guest is paused afterwards."""
    text = _ask(guest, "r", _REPORT, patience)
    pairs = dict(pair.split("=", 1) for pair in text.split())
    intact = pairs.pop("memory") == "intact"
    return GuestReport(text, {name: int(value) for name, value in pairs.items()}, intact)


def ask_for_timebase(guest: Guest, patience: Ticks = PATIENCE) -> int:
    """Have the guest read its timebase and print it; the guest is paused afterwards."""
    return int(_ask(guest, "t", _TIMEBASE, patience), 16)


def stamp(guest: Guest, patience: Ticks = PATIENCE) -> StampedReading:
    """Have the guest read its timebase between two looks at its host's clock."""
    clock = guest.system.clock.source
    before = clock.ticks()
    timebase = ask_for_timebase(guest, patience)
    return StampedReading(before, timebase, clock.ticks())


def _ask(guest: Guest, command: str, answer: re.Pattern[str], patience: Ticks) -> str:
    before = len(answer.findall(guest.console_text))
    guest.console.type(command)
    if not guest.run_until(lambda text: len(answer.findall(text)) > before, patience):
        raise SilentGuestError(
            f"the guest did not answer {command!r}; its console says:\n{guest.console_text}"
        )
    found: str = answer.findall(guest.console_text)[-1]
    return found


@dataclass(frozen=True, slots=True)
class Moment:
    """An event, with the machine's clock and the host's timebase at the moment of its report."""

    event: Event
    tick: int
    host_time: HostTime


class Recorder:
    """An observer that records events with their moments, and the place of each output among them."""

    def __init__(self) -> None:
        self.clock: HostClock | None = None
        """The clock of the observed host; set as soon as the host exists."""
        self.moments: list[Moment] = []
        self._heard: list[tuple[bytes, int]] = []
        self._calls: list[tuple[bytes, Callable[[], None]]] = []

    def __call__(self, event: Event) -> None:
        """Record the event."""
        if self.clock is not None:
            tick = self.clock.source.ticks()
            self.moments.append(Moment(event, tick, self.clock.at(tick)))

    def hear(self, data: bytes) -> None:
        """Take the guest's output, at the hypercall that prints it."""
        self._heard.append((data, len(self.moments)))
        for prefix, call in [pair for pair in self._calls if data.startswith(pair[0])]:
            self._calls.remove((prefix, call))
            call()

    def at_output(self, prefix: str, call: Callable[[], None]) -> None:
        """Have `call` made once, at the hypercall that prints `prefix`; other vCPUs are in the guest then."""
        self._calls.append((prefix.encode(), call))

    def entered_before(self, printed: str) -> Moment:
        """Return the last entry before the guest printed exactly this in one hypercall."""
        place = next(at for data, at in reversed(self._heard) if data == printed.encode())
        return next(m for m in reversed(self.moments[:place]) if isinstance(m.event, OffsetApplied))
