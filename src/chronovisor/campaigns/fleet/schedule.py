"""Who moves where and when: a discrete-event simulation of cells of a fleet.

A cell is a group of hosts among which guests move. Each host is evacuated for maintenance at regular
intervals, reboots, and comes back empty. Every hour the most loaded hosts each give a guest to the least
loaded ones. The clocks of the guests play no part in it.

Several cells are simulated side by side, because their hosts are balanced and evacuated at the same times:
one operation on arrays is the same event in all of them. A cell has chance of its own, so its moves do not
depend on which cells are beside it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

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
SPREAD: Final = 40
"""An evacuated host's guests go to so many hosts, the least loaded ones."""
IMBALANCE: Final = 0.35
"""Two hosts are balanced if their loads differ by more than this share of the mean load."""
STEADY: Final = 4
"""A guest's load changes once in so many hours."""
STEP: Final = 0.35
"""The logarithm of how much busier or idler a guest becomes by a change, at most."""
_US: Final = FREQUENCY / 1_000_000

_BALANCE, _EVACUATE, _RETURN = range(3)


class Cells:
    """Some cells: their hosts, their guests, and the paths between their racks.

    The guests of all cells are numbered through, and so are the hosts: the first cell's come first.
    """

    def __init__(self, seed: int, numbers: range, guests: int) -> None:
        self._chances = [np.random.default_rng([seed, number]) for number in numbers]
        self._first_hosts: Integers = np.arange(0, len(numbers) * HOSTS, HOSTS)[:, None]
        hosts, shape = len(numbers) * HOSTS, (len(numbers), guests)
        place = self._drawn(lambda chance: chance.integers(0, HOSTS, guests)) + self._first_hosts
        self._place: Integers = place.ravel()
        self.began_on: Integers = self._place.copy()
        """The boot of the host on which each guest begins."""
        self._size: Reals = np.clip(self._drawn(lambda chance: chance.lognormal(0.0, 0.7, guests)), 0.2, 3.0)
        """Each guest's load when it is neither busier nor idler than usual; a row for each cell."""
        self._busy: Reals = np.zeros(shape)
        """The logarithm of how much busier it will be after its next change."""
        self._next_need: Reals = self._size.copy()
        """Each guest's load after its next change."""
        self._need: Reals = self._size.copy()
        """Each guest's load now."""
        self._draw_day()
        self._downtime: Reals = np.clip(
            self._drawn(lambda chance: chance.lognormal(np.log(30e3 * _US), 1.0, guests)).ravel(),
            1e3 * _US,
            1e6 * _US,
        )
        """Each guest's mean downtime, in ticks: about 30 ms, 1 ms to 1 s."""
        self._up = np.ones((len(numbers), HOSTS), dtype=bool)
        self._boot: Integers = np.arange(hosts)
        """The present boot of each host."""
        began = self._drawn(lambda chance: -chance.integers(0, MAINTENANCE, HOSTS)).ravel()
        self._boots: list[tuple[int, int]] = list(enumerate(began.tolist()))
        racks = HOSTS // RACK
        skew = np.triu(self._drawn(lambda chance: chance.uniform(-0.5, 0.5, (racks, racks))), 1)
        least = np.where(np.eye(racks, dtype=bool), 50 * _US, 150 * _US)
        self._flight: Reals = least * (1 + skew - skew.transpose(0, 2, 1))
        """The least flight from rack to rack: a path takes longer one way than the other."""
        self._free_at: Integers = np.zeros(len(numbers), dtype=np.int64)
        """When each cell can begin its next move."""
        self._moved: list[tuple[Integers, Integers, Integers, Integers]] = []
        self._count: Integers = np.bincount(self._place, minlength=hosts)
        """How many guests each host has, …"""
        self._residents: Integers = np.zeros((hosts, 2 * int(self._count.max())), dtype=np.int64)
        """… and which ones: a row for each host, in which so many entries count."""
        by_host = np.argsort(self._place, kind="stable")
        within = np.arange(len(by_host)) - np.repeat(np.cumsum(self._count) - self._count, self._count)
        self._residents[self._place[by_host], within] = by_host

    def _drawn(self, draw: Callable[[np.random.Generator], NDArray[Any]]) -> NDArray[Any]:
        """Return what each cell draws, a row for each."""
        return np.stack([draw(chance) for chance in self._chances])

    def run(self, end: int) -> tuple[Boots, Moves]:
        """Simulate the cells up to tick `end`; return all boots and all moves."""
        events = [(HOUR, _BALANCE, 0)]
        events += [((2 * host + 1) * MAINTENANCE // (2 * HOSTS), _EVACUATE, host) for host in range(HOSTS)]
        heapq.heapify(events)
        while events[0][0] < end:
            due, kind, host = heapq.heappop(events)
            if kind == _BALANCE:
                self._balance(due)
                heapq.heappush(events, (due + HOUR, _BALANCE, 0))
            elif kind == _EVACUATE:
                evacuated = self._first_hosts.ravel() + host
                self._evacuate(due, evacuated)
                for one, empty_at in zip(evacuated.tolist(), self._free_at.tolist(), strict=True):
                    heapq.heappush(events, (empty_at + AWAY, _RETURN, one))
                heapq.heappush(events, (due + MAINTENANCE, _EVACUATE, host))
            else:
                self._boot[host] = len(self._boots)
                self._boots.append((host, due))
                self._up.flat[host] = True
        return self._written()

    def _loads(self) -> tuple[Reals, Integers]:
        """Return every host's load, a row for each cell, and each cell's hosts from the least loaded to the
        most loaded one. Hosts that are not up come last.
        """
        flat = np.bincount(self._place, self._need.ravel(), self._up.size)
        load = np.asarray(flat, dtype=np.float64).reshape(self._up.shape)
        order: Integers = np.argsort(np.where(self._up, load, np.inf)) + self._first_hosts
        return load, order

    def _draw_day(self) -> None:
        """Draw what a day's balancing needs."""
        guests = self._size.shape[1]
        shares = self._drawn(lambda chance: chance.random((24 // STEADY, guests)))
        self._steps: Reals = STEP * (2 * shares - 1)
        """How much busier each guest becomes at each change of its load."""
        self._choices: Reals = self._drawn(lambda chance: chance.random((24, PAIRS)))
        """What decides which guests are moved each hour."""

    def _change_loads(self, hour: int) -> None:
        turn, some = divmod(hour, STEADY)
        if some == 0:
            self._busy = 0.9 * self._busy + self._steps[:, turn]
            self._next_need = self._size * np.exp(self._busy)
        self._need[:, some::STEADY] = self._next_need[:, some::STEADY]

    def _balance(self, now: int) -> None:
        hour = now // HOUR % 24
        if hour == 0:
            self._draw_day()
        self._change_loads(hour)
        load, order = self._loads()
        up = np.count_nonzero(self._up, axis=1)[:, None]
        cold = order[:, :PAIRS]
        hot = order.ravel()[self._first_hosts + up - 1 - np.arange(PAIRS)]
        enough = IMBALANCE / HOSTS * load.sum(axis=1, keepdims=True)
        count = self._count[hot]
        # Nothing is gained by moving the only guest of a host.
        far = (load.ravel()[hot] - load.ravel()[cold] > enough) & (count > 1)
        if not far.any():
            return
        hot, count = hot[far], count[far]
        chosen = (self._choices[:, hour][far] * count).astype(np.int64)
        guests = self._residents[hot, chosen]
        self._residents[hot, chosen] = self._residents[hot, count - 1]
        self._count[hot] = count - 1
        self._move(now, far, guests, cold[far])

    def _evacuate(self, now: int, hosts: Integers) -> None:
        """Evacuate a host of each cell."""
        self._up.flat[hosts] = False
        count = self._count[hosts]
        self._count[hosts] = 0
        to = self._loads()[1][:, :SPREAD]
        # A host gets one guest at a time, so that the guests of a move go to hosts that differ.
        for first in range(0, max(1, int(count.max())), SPREAD):
            leaving = np.arange(first, first + SPREAD) < count[:, None]
            row, column = np.nonzero(leaving)
            guests = self._residents[hosts[row], first + column]
            self._move(now, leaving, guests, to[leaving])

    def _move(self, now: int, which: NDArray[np.bool_], guests: Integers, to: Integers) -> None:
        """Move `guests` one after another, each cell for itself, to hosts that differ. `which` has a row for
        each cell; the guests and hosts are those of its true entries.
        """
        number = which.cumsum(axis=1)
        begun = np.maximum(self._free_at, now)
        self._free_at = begun + BETWEEN * number[:, -1]
        begun_at = (begun[:, None] + BETWEEN * (number - 1))[which]
        self._moved.append((begun_at, guests, self._boot[self._place[guests]], self._boot[to]))
        self._place[guests] = to
        count = self._count[to]
        if len(count) and count.max() == self._residents.shape[1]:
            self._residents = np.concatenate([self._residents, np.zeros_like(self._residents)], axis=1)
        self._residents[to, count] = guests
        self._count[to] = count + 1

    def _written(self) -> tuple[Boots, Moves]:
        host, at = (np.array(values, dtype=np.int64) for values in zip(*self._boots, strict=True))
        none = [np.zeros(0, dtype=np.int64)]
        begun, guest, source, destination = (
            np.concatenate([moved[part] for moved in self._moved] or none) for part in range(4)
        )
        cell = (guest // self._size.shape[1]).astype(np.int16)
        order = np.argsort(cell, kind="stable")
        begun, guest, source, destination, cell = (
            values[order] for values in (begun, guest, source, destination, cell)
        )
        each = list(zip(self._chances, np.bincount(cell, minlength=len(self._chances)).tolist(), strict=True))
        after = np.concatenate([chance.integers(0, FREQUENCY // 2, many) for chance, many in each])
        share = np.concatenate([chance.uniform(0.5, 1.5, many) for chance, many in each])
        queueing = np.concatenate([chance.exponential(50 * _US, (2, many)) for chance, many in each], axis=1)
        racks = host[source] % HOSTS // RACK, host[destination] % HOSTS // RACK
        return Boots(host, at), Moves(
            guest=guest,
            stopped=begun + after,
            downtime=(self._downtime[guest] * share).astype(np.int64),
            ready=(self._flight[cell, racks[1], racks[0]] + queueing[0]).astype(np.int64),
            commit=(self._flight[cell, racks[0], racks[1]] + queueing[1]).astype(np.int64),
            source=source,
            destination=destination,
        )
