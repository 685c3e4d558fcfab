"""How much of the time that a guest was away counts for it: the policy that `--time` names.

A guest is away from its stop to its next start: during a move, while it is paused, while it lies in a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.timebase.types import FREQUENCY, Ticks

_BOUNDED: Final = "bounded:"
_LONGEST: Final = 1 << 62
"""Ticks (285 years): a bound that fits every field that holds a duration."""


class PolicyError(ValueError):
    """The text is not the name of a policy."""


@dataclass(frozen=True, slots=True)
class TimePolicy:
    """How much of the time away counts: all of it, or the first part up to `most`."""

    most: Ticks | None
    """The most that counts (not negative); None if all of it counts."""

    def __post_init__(self) -> None:
        if self.most is not None and not Ticks(0) <= self.most <= Ticks(_LONGEST):
            raise PolicyError(f"a bound of {self.most.value} ticks: the time away counts for 0 to {_LONGEST}")

    def counted(self, away: int) -> int:
        """Return how many of `away` ticks count."""
        return away if self.most is None or away < self.most.value else self.most.value

    def at_most(self, step: Ticks) -> TimePolicy:
        """Return the policy, bounded by `step` if it has no bound of its own."""
        return TimePolicy(step) if self.most is None else self

    @classmethod
    def parse(cls, text: str) -> TimePolicy:
        """Return the policy of that name: freeze, catch-up or bounded:SECONDS; PolicyError for any other."""
        if text in NAMED:
            return NAMED[text]
        # Imported here, because every command knows policies and few parse one.
        from decimal import Decimal

        if text.startswith(_BOUNDED):
            try:
                ticks = Decimal(text[len(_BOUNDED) :]) * FREQUENCY
                # Compare first: a number that is far too large would become a very long integer.
                if 0 <= ticks <= _LONGEST:
                    return cls(Ticks(int(ticks)))
            except ArithmeticError:
                pass
        raise PolicyError(f"time {text!r}: write freeze, catch-up, or bounded:SECONDS as in bounded:1.5")

    def __str__(self) -> str:
        for name, policy in NAMED.items():
            if policy == self:
                return name
        from decimal import Decimal

        assert self.most is not None
        return f"{_BOUNDED}{(Decimal(self.most.value) / FREQUENCY).normalize():f}"


FREEZE: Final = TimePolicy(Ticks(0))
"""The time away does not count: the guest continues as if it had not been stopped."""

CATCH_UP: Final = TimePolicy(None)
"""All of it counts: the guest continues as if it had run."""

NAMED: Final = {"freeze": FREEZE, "catch-up": CATCH_UP}
