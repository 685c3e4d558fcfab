"""The timebases of a fleet's hosts: how far each one is from the true time, at any moment.

Each host has a crystal of its own, whose rate is off by some parts in a million and changes a little with the
temperature, day by day. Its timebase begins at a value of its own at each boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from chronovisor.campaigns.fleet.moves import Boots, Integers, Reals
from chronovisor.campaigns.fleet.schedule import DAY
from chronovisor.timebase.types import LOW_MASK

_PPM: Final = 1e-6
CONSTANT_PPM: Final = 5.0
"""The standard deviation of the rates, in parts in a million."""
DAILY_PPM: Final = 0.5
"""The largest amplitude of their daily change."""
_TURN: Final = 2 * np.pi / DAY


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fleet."""

    words: str
    same_rate: bool
    """Whether all hosts count by one reference, so that their rates are the same."""
    in_phase: bool
    """Whether each host's timebase is set at its boot so that its low 24 bits are those of the true time."""


ANY_PHASE: Final = Kind("any phase, free rates", same_rate=False, in_phase=False)
IN_PHASE: Final = Kind("in phase at boot, free rates", same_rate=False, in_phase=True)
LOCKED: Final = Kind("in phase, one rate", same_rate=True, in_phase=True)


class Timebases:
    """The timebases of the boots of hosts, in a fleet of one kind."""

    def __init__(self, kind: Kind, boots: Boots, hosts: int, seed: list[int]) -> None:
        chance = np.random.default_rng(seed)
        rate = chance.normal(0.0, CONSTANT_PPM * _PPM, hosts)
        swing = chance.uniform(0.0, DAILY_PPM * _PPM, hosts)
        turn = chance.uniform(0.0, 2 * np.pi, hosts)
        origin = chance.integers(0, LOW_MASK + 1, len(boots.host))
        self._rate: Reals = rate[boots.host] * (not kind.same_rate)
        self._swing: Reals = swing[boots.host] * (not kind.same_rate)
        self._turn: Reals = turn[boots.host]
        every = np.arange(len(boots.host))
        at_boot = self.ahead(every, boots.at)
        self._low: Integers = -at_boot if kind.in_phase else origin - at_boot

    def ahead(self, boot: Integers, now: Integers) -> Integers:
        """Return how many ticks more than the true ones the crystals of boots count from 0 to `now`."""
        wave = np.cos(self._turn[boot]) - np.cos(self._turn[boot] + _TURN * now)
        ticks: Reals = self._rate[boot] * now + self._swing[boot] / _TURN * wave
        return np.rint(ticks).astype(np.int64)

    def rate(self, boot: Integers, now: Integers) -> Reals:
        """Return the rate's error of boots at `now`: 1e-6 is one tick too many in a million."""
        return self._rate[boot] + self._swing[boot] * np.sin(self._turn[boot] + _TURN * now)

    def low_bits(self, boot: Integers, now: Integers) -> Integers:
        """Return the low 24 bits of the timebases of boots at `now`."""
        return (now + self.ahead(boot, now) + self._low[boot]) & LOW_MASK
