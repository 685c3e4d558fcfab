"""Who moves where and when: a discrete-event simulation of one cell of a fleet.

A cell is a group of hosts among which guests move. Each host is evacuated for maintenance at regular
intervals, reboots, and comes back empty. Every hour the most loaded hosts each give a guest to the least
loaded ones. The clocks of the guests play no part in it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from chronovisor.campaigns.fleet.moves import Boots, Integers, Moves, Reals
from chronovisor.timebase.types import FREQUENCY

HOSTS: Final = 100
"""Hosts of a cell."""
RACK: Final = 20
"""Hosts of a rack."""
HOUR: Final = 3600 * FREQUENCY
DAY: Final = 24 * HOUR
MAINTENANCE: Final = 30 * DAY
"""Between two evacuations of a host."""
AWAY: Final = HOUR
"""How long a host is away for maintenance."""
BETWEEN: Final = 2 * FREQUENCY
"""Between two moves of one cell, which are made one after another."""
PAIRS: Final = 20
"""Moves that an hour's balancing makes at most."""
IMBALANCE: Final = 0.35
"""Two hosts are balanced if their loads differ by more than this share of the mean load."""
STEADY: Final = 4
"""A guest's load changes once in so many hours."""
_US: Final = FREQUENCY / 1_000_000

_BALANCE, _EVACUATE, _RETURN = range(3)


@dataclass
class _Events:
    """The events to come."""

    heap: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, at: int, kind: int, host: int = 0) -> None:
        heapq.heappush(self.heap, (at, kind, host))


class Cell:
    """One cell: its hosts, its guests, and the paths between its racks."""

    def __init__(self, seed: int, number: int, guests: int) -> None:
        self._chance = chance = np.random.default_rng([seed, number])
        self._place: Integers = chance.integers(0, HOSTS, guests)
        self.began_on: Integers = self._place.copy()
        """The boot of the host on which each guest begins."""
        self._size = np.clip(chance.lognormal(0.0, 0.7, guests), 0.2, 3.0)
        """Each guest's load when it is neither busier nor idler than usual."""
        self._busy = np.zeros(guests)
        """The logarithm of how much busier it is now."""
        self._need = self._size.copy()
        """Each guest's load now."""
        self._downtime = np.clip(chance.lognormal(np.log(30e3 * _US), 1.0, guests), 1e3 * _US, 1e6 * _US)
        """Each guest's mean downtime, in ticks: about 30 ms, 1 ms to 1 s."""
        self._up = np.ones(HOSTS, dtype=bool)
        self._boot: Integers = np.arange(HOSTS)
        """The present boot of each host."""
        self._boots = [(host, -int(at)) for host, at in enumerate(chance.integers(0, MAINTENANCE, HOSTS))]
        racks = HOSTS // RACK
        skew = np.triu(chance.uniform(-0.5, 0.5, (racks, racks)), 1)
        self._flight = np.where(np.eye(racks, dtype=bool), 50 * _US, 150 * _US) * (1 + skew - skew.T)
        """The least flight from rack to rack: a path takes longer one way than the other."""
        self._free_at = 0
        self._moved: list[tuple[int, Integers, Integers, Integers]] = []

    def run(self, end: int) -> tuple[Boots, Moves]:
        """Simulate the cell up to tick `end`; return all boots and all moves."""
        events = _Events()
        events.add(HOUR, _BALANCE)
        for host in range(HOSTS):
            events.add((2 * host + 1) * MAINTENANCE // (2 * HOSTS), _EVACUATE, host)
        while events.heap and events.heap[0][0] < end:
            due, kind, host = heapq.heappop(events.heap)
            if kind == _BALANCE:
                self._balance(due)
                events.add(due + HOUR, _BALANCE)
            elif kind == _EVACUATE:
                self._evacuate(due, host)
                events.add(self._free_at + AWAY, _RETURN, host)
                events.add(due + MAINTENANCE, _EVACUATE, host)
            else:
                self._boot[host] = len(self._boots)
                self._boots.append((host, due))
                self._up[host] = True
        return self._written()

    def _load(self) -> tuple[Integers, Reals]:
        """Return the hosts that are up, from the least loaded to the most loaded, and every host's load."""
        load = np.asarray(np.bincount(self._place, self._need, HOSTS), dtype=np.float64)
        order = np.argsort(load)
        return order[self._up[order]], load

    def _change_loads(self, some: slice) -> None:
        busy = 0.9 * self._busy[some]
        busy += self._chance.normal(0.0, 0.2, len(busy))
        self._busy[some] = busy
        self._need[some] = self._size[some] * np.exp(busy)

    def _balance(self, now: int) -> None:
        self._change_loads(slice(now // HOUR % STEADY, None, STEADY))
        order, load = self._load()
        cold, hot = order[:PAIRS], order[::-1][:PAIRS]
        count = np.bincount(self._place, minlength=HOSTS)
        # Nothing is gained by moving the only guest of a host.
        far = (load[hot] - load[cold] > IMBALANCE * load.sum() / HOSTS) & (count[hot] > 1)
        cold, hot = cold[far], hot[far]
        if not len(hot):
            return
        by_host = np.argsort(self._place.astype(np.int16), kind="stable")
        first = np.cumsum(count) - count
        drawn = (self._chance.random(len(hot)) * count[hot]).astype(np.int64)
        self._move(now, by_host[first[hot] + drawn], cold)

    def _evacuate(self, now: int, host: int) -> None:
        self._up[host] = False
        leaving = np.flatnonzero(self._place == host)
        if len(leaving):
            order, _ = self._load()
            self._move(now, leaving, order[np.arange(len(leaving)) % (len(order) // 2)])

    def _move(self, now: int, guests: Integers, to: Integers) -> None:
        now = max(now, self._free_at)
        self._free_at = now + BETWEEN * len(guests)
        self._moved.append((now, guests, self._boot[self._place[guests]], self._boot[to]))
        self._place[guests] = to

    def _written(self) -> tuple[Boots, Moves]:
        host, at = (np.array(values, dtype=np.int64) for values in zip(*self._boots, strict=True))
        counts = np.array([len(guests) for _, guests, _, _ in self._moved], dtype=np.int64)
        none = [np.zeros(0, dtype=np.int64)]
        guest, source, destination = (
            np.concatenate([moved[part] for moved in self._moved] or none) for part in (1, 2, 3)
        )
        within = np.arange(len(guest)) - np.repeat(np.cumsum(counts) - counts, counts)
        begun = np.repeat(np.array([now for now, *_ in self._moved], dtype=np.int64), counts)
        chance, many = self._chance, len(guest)
        racks = host[source] // RACK, host[destination] // RACK
        queueing = chance.exponential(50 * _US, (2, many))
        return Boots(host, at), Moves(
            guest=guest,
            stopped=begun + BETWEEN * within + chance.integers(0, FREQUENCY // 2, many),
            downtime=(self._downtime[guest] * chance.uniform(0.5, 1.5, many)).astype(np.int64),
            ready=(self._flight[racks[1], racks[0]] + queueing[0]).astype(np.int64),
            commit=(self._flight[racks[0], racks[1]] + queueing[1]).astype(np.int64),
            source=source,
            destination=destination,
        )
