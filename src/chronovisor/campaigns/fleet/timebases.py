"""The timebases of a fleet's hosts: how far each one is from the true time, at any moment.

Each host has a crystal of its own, whose rate is off by some parts in a million and changes a little with the
temperature, day by day. Its timebase begins at a value of its own at each boot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from chronovisor.campaigns.fleet.moves import Boots, Integers, Reals
from chronovisor.campaigns.fleet.schedule import DAY, HOSTS
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

    def __init__(self, kind: Kind, boots: Boots, seeds: Sequence[list[int]]) -> None:
        """Draw what each cell's hosts and boots are, with a seed for each cell."""
        rates, swings, phases = [], [], []
        self._low: Integers = np.zeros(len(boots.host), dtype=np.int64)
        for cell, seed in enumerate(seeds):
            chance = np.random.default_rng(seed)
            rates.append(chance.normal(0.0, CONSTANT_PPM * _PPM, HOSTS))
            swings.append(chance.uniform(0.0, DAILY_PPM * _PPM, HOSTS))
            phases.append(chance.uniform(0.0, 2 * np.pi, HOSTS))
            mine = np.flatnonzero(boots.host // HOSTS == cell)
            self._low[mine] = chance.integers(0, LOW_MASK + 1, len(mine))
        self._rate: Reals = np.concatenate(rates)[boots.host]
        self._swing: Reals = np.concatenate(swings)[boots.host]
        self._turn: Reals = np.concatenate(phases)[boots.host]
        self._begun: Reals = np.cos(self._turn)
        self._same_rate = kind.same_rate
        if kind.in_phase:
            self._low[:] = 0
        self._low -= self.ahead(np.arange(len(boots.host)), boots.at)

    def ahead(self, boot: Integers, now: Integers) -> Integers:
        """Return how many ticks more than the true ones the crystals of boots count from 0 to `now`."""
        if self._same_rate:
            return np.zeros_like(now)
        wave = self._begun[boot] - np.cos(self._turn[boot] + _TURN * now)
        ticks: Reals = self._rate[boot] * now + self._swing[boot] / _TURN * wave
        return np.rint(ticks).astype(np.int64)

    def rate(self, boot: Integers, now: Integers) -> Reals:
        """Return the rate's error of boots at `now`: 1e-6 is one tick too many in a million."""
        if self._same_rate:
            return np.zeros(now.shape)
        return self._rate[boot] + self._swing[boot] * np.sin(self._turn[boot] + _TURN * now)

    def low_bits(self, boot: Integers, now: Integers) -> Integers:
        """Return the low 24 bits of the timebases of boots at `now`."""
        return (now + self.ahead(boot, now) + self._low[boot]) & LOW_MASK
