"""What cells add up to, under one rule: counts, sums, extremes, and how the guests' errors are distributed.

Errors are counted in bins that are an eighth of a doubling wide, so a quantile is at most 9 % too large.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np

from chronovisor.campaigns.campaign import Json
from chronovisor.campaigns.fleet.moves import Integers

_BINS = 8
"""Bins in a doubling."""


class Histogram:
    """How often there was an error of about so many ticks, whatever its sign."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self._counts = counts or {}

    def add(self, errors: Integers) -> None:
        """Count errors."""
        bins, counts = np.unique(
            np.ceil(_BINS * np.log2(np.abs(errors).astype(np.float64) + 1)).astype(np.int64),
            return_counts=True,
        )
        for at, count in zip(bins.tolist(), counts.tolist(), strict=True):
            self._counts[at] = self._counts.get(at, 0) + count

    def merge(self, other: Histogram) -> None:
        """Count what another one has counted."""
        for at, count in other._counts.items():
            self._counts[at] = self._counts.get(at, 0) + count

    def quantile(self, share: float) -> float:
        """Return an error, in ticks, that so large a share of the errors does not exceed."""
        left = share * sum(self._counts.values())
        for at in sorted(self._counts):
            left -= self._counts[at]
            if left <= 0:
                break
        else:
            return 0.0
        return float(2 ** (at / _BINS) - 1)

    def to_json(self) -> Json:
        """Return it in JSON's types."""
        return sorted(self._counts.items())

    @classmethod
    def from_json(cls, told: Json) -> Histogram:
        """Read what `to_json` wrote."""
        return cls({int(at): int(count) for at, count in told})


@dataclass
class Tally:
    """The sums. Times are in ticks."""

    moves: int = 0
    steps_back: int = 0
    waits: int = 0
    """Moves after which the guest waited."""
    waited: int = 0
    """All waits together."""
    outside: int = 0
    """How often the true error was outside the interval that the rule stated."""
    guests: int = 0
    largest_error: int = 0
    largest_step_back: int = 0
    longest_wait: int = 0
    largest_rounding: int = 0
    errors: list[Histogram] = field(default_factory=list)
    """The errors of all guests' clocks at the end of each month."""

    def merge(self, other: Tally) -> None:
        """Add another tally."""
        for name in (one.name for one in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "errors":
                self.errors += [Histogram() for _ in range(len(theirs) - len(mine))]
                for histogram, more in zip(self.errors, theirs, strict=False):
                    histogram.merge(more)
            else:
                extreme = name.startswith(("largest", "longest"))
                setattr(self, name, max(mine, theirs) if extreme else mine + theirs)

    def to_json(self) -> Json:
        """Return it in JSON's types."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**told, "errors": [histogram.to_json() for histogram in self.errors]}

    @classmethod
    def from_json(cls, told: Json) -> Tally:
        """Read what `to_json` wrote."""
        return cls(**{**told, "errors": [Histogram.from_json(one) for one in told["errors"]]})


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole
