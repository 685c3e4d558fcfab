"""Whether the time that a guest was away counts for it: the policy that is named with `--time`.

A guest is away from its stop to its next start: on a move, while it is paused, while it lies in a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.timebase.types import FREQUENCY, Ticks

_BOUNDED: Final = "bounded:"
_LONGEST: Final = 1 << 62
"""Ticks (285 years): a bound that fits wherever a duration is written down."""


class PolicyError(ValueError):
    """A text that names no policy."""


@dataclass(frozen=True, slots=True)
class TimePolicy:
    """How much of the time away counts: all of it, or the first part up to `most`."""

    most: Ticks | None
    """At most so much counts (not negative); None: all."""

    def __post_init__(self) -> None:
        if self.most is not None and not Ticks(0) <= self.most <= Ticks(_LONGEST):
            raise PolicyError(f"a bound of {self.most.value} ticks: the time away counts for 0 to {_LONGEST}")

    def counted(self, away: int) -> int:
        """Return what counts of `away` ticks."""
        return away if self.most is None or away < self.most.value else self.most.value

    @classmethod
    def parse(cls, text: str) -> TimePolicy:
        """Return the policy of that name: freeze, catch-up or bounded:SECONDS; PolicyError for any other."""
        if text in NAMED:
            return NAMED[text]
        # Imported where it is needed: every command knows policies, and few are told one.
        from decimal import Decimal

        if text.startswith(_BOUNDED):
            try:
                ticks = Decimal(text[len(_BOUNDED) :]) * FREQUENCY
                # Compared first: what is far too much would be a very long integer.
                if 0 <= ticks <= _LONGEST:
                    return cls(Ticks(int(ticks)))
            except ArithmeticError:
                pass
        raise PolicyError(f"--time {text!r}: write freeze, catch-up, or bounded:SECONDS as in bounded:1.5")

    def __str__(self) -> str:
        for name, policy in NAMED.items():
            if policy == self:
                return name
        from decimal import Decimal

        assert self.most is not None
        return f"{_BOUNDED}{(Decimal(self.most.value) / FREQUENCY).normalize():f}"


FREEZE: Final = TimePolicy(Ticks(0))
"""The time away does not count: the guest goes on as if it had not been stopped."""

CATCH_UP: Final = TimePolicy(None)
"""All of it counts: the guest goes on as if it had run."""

NAMED: Final = {"freeze": FREEZE, "catch-up": CATCH_UP}
