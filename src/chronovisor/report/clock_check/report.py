"""What a check of a guest's clocks found, and what of it counts as a fault."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from chronovisor.report.clock_check.course import Held, Step
from chronovisor.report.clock_check.floor import Bounds
from chronovisor.report.clock_check.lines import Back, Hello

NAMES: Final = {
    "mono": "MONOTONIC",
    "raw": "MONOTONIC_RAW",
    "boot": "BOOTTIME",
    "real": "REALTIME",
    "tb": "counter",
    "monoc": "MONOTONIC_COARSE",
    "realc": "REALTIME_COARSE",
}
"""What people call the clocks that samples name; the counter is the timebase, the TSC or CNTVCT."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is a fault. All in nanoseconds, but `rate_ppm`."""

    step: int = 4_000_000
    """The smallest step that is looked for."""
    rate_ppm: float = 500.0
    """A clock's rate against the host's; 500 ppm is as far as NTP may take it."""
    late: int = 500_000_000
    """A timer that fires so much later is late."""
    silence: int = 2_000_000_000
    """Time without a line, by the host's clock."""
    allowance: int = 1_000_000
    """By how much the fastest way from guest to host may vary: the bounds of steps and rates contain it."""


@dataclass(frozen=True, slots=True)
class ClockRate:
    """A clock's rate against the host's, in the longest stretch without a step."""

    clock: str
    ppm: Bounds | None
    """None: too few lines to say."""
    seconds: float
    """How long the stretch is."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """Clocks of the guest that stepped together against the host's clock."""

    clocks: tuple[str, ...]
    seconds: float
    """When it was seen, since the first line."""
    after_seq: int
    before_seq: int
    ns: Bounds
    """How far: positive is forward. These bounds hold for each of the clocks."""

    @classmethod
    def of(cls, clock: str, step: Step) -> ClockStep:
        """Return one clock's step."""
        return cls((clock,), step.at / 1e9, step.after_seq, step.before_seq, step.size)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two clocks of the guest that advanced by different times between two samples."""

    clock: str
    seq: int
    ns: int
    """What the clock advanced more than MONOTONIC (negative: less). A coarse clock: how far it was ahead of
    its fine clock."""
    bound_ns: int
    """What the reading and slewing of clocks can explain."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A time without lines."""

    seconds: float
    """When it ended, since the first line."""
    seq: int
    """The first sample after it."""
    host_ns: int
    guest_ns: int
    """How far the host's clock and the guest's MONOTONIC advanced."""


@dataclass(slots=True)
class Timers:
    """What became of the guest's timers."""

    fired: int = 0
    early: int = 0
    lost: int = 0
    late: int = 0
    """How many were later than the limit."""
    worst_late_ns: int = 0
    worst_seq: int = 0
    skipped: int = 0
    """How many had no chance: their time had passed when the guest came to set them."""


@dataclass(frozen=True, slots=True)
class KernelLine:
    """A complaint of the guest's kernel."""

    kind: str
    text: str
    seconds: float | None


@dataclass(slots=True)
class Points:
    """Points for the picture: the clocks against the host's."""

    seconds: list[float] = field(default_factory=list)
    ahead_ms: list[float] = field(default_factory=list)
    """How far the clock is ahead of where it was in the first line, less each line's delay."""


@dataclass(slots=True)
class Report:
    """All that was found. `faults` says what of it is wrong, a line each; empty means that all is well."""

    limits: Limits
    hello: Hello | None = None
    samples: int = 0
    seconds: float | None = None
    """From the first sample to the last by the host's clock; None if the lines had no times."""
    torn: int = 0
    """Lines that were damaged on their way."""
    missing: int = 0
    """Samples that never arrived."""
    overlong: int = 0
    """Lines of the console that were cut because they were too long."""
    finished: bool = False
    """Whether the guest's half said that it was done."""
    restarts: int = 0
    cpus: int = 0
    rates: list[ClockRate] = field(default_factory=list)
    fast: list[ClockRate] = field(default_factory=list)
    """Rates beyond the limit in any stretch, the bounds considered."""
    steps: list[ClockStep] = field(default_factory=list)
    more_steps: int = 0
    """Steps beyond those that are listed."""
    backs: int = 0
    back_lines: list[Back] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)
    more_disagreements: int = 0
    coarse_ns: int = 0
    """The furthest that a coarse clock was behind its fine clock: about a tick of the kernel's."""
    timers: Timers = field(default_factory=Timers)
    silences: list[Silence] = field(default_factory=list)
    more_silences: int = 0
    held: list[Held] = field(default_factory=list)
    """When lines came late as a body; `since` and `until` in nanoseconds since the first line."""
    complaints: dict[str, int] = field(default_factory=dict)
    kernel_lines: list[KernelLine] = field(default_factory=list)
    points: dict[str, Points] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What is wrong, one line each."""
        timers = self.timers
        limits, silences = self.limits, len(self.silences) + self.more_silences
        disagreements = len(self.disagreements) + self.more_disagreements
        counts = (
            (self.backs, "reading", "went back"),
            (len(self.steps) + self.more_steps, "step", "against the host's clock"),
            (len(self.fast), "rate", f"beyond {limits.rate_ppm:g} ppm"),
            (disagreements, "time", "that two clocks of the guest disagreed"),
            (timers.early, "timer", "fired early"),
            (timers.lost, "timer", "did not fire"),
            (timers.late, "timer", f"fired later than {limits.late / 1e6:g} ms"),
            (silences, "time", f"without a line for {limits.silence / 1e9:g} s"),
            (sum(self.complaints.values()), "complaint", "of the kernel"),
            (self.restarts, "unexpected start", "of the guest's half"),
        )
        return [f"{count} {what}{'s' * (count > 1)} {more}" for count, what, more in counts if count]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON has it, without the points of the picture."""
        found = asdict(self)
        del found["points"]
        for each in (*found["steps"], *found["rates"], *found["fast"]):
            for key in ("ns", "ppm"):
                if each.get(key) is not None:
                    low, high = each[key]
                    each[key] = {"low": low, "high": high}
        return found | {"faults": self.faults}
