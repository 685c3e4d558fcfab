"""A record of moves, as arrays with an entry for each move."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Reals: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Boots:
    """The boots of hosts. A host's timebase begins anew at each boot."""

    host: Integers
    at: Integers
    """True ticks, negative for boots before the beginning."""


@dataclass(frozen=True, slots=True)
class Moves:
    """Moves of guests, in their order. Times are true ticks since the beginning."""

    guest: Integers
    stopped: Integers
    """When the guest was stopped."""
    downtime: Integers
    """From the stop to the sending of COMMIT."""
    ready: Integers
    """The flight of READY."""
    commit: Integers
    """The flight of COMMIT."""
    source: Integers
    """The boot of the host that the guest leaves: an index of `Boots`."""
    destination: Integers

    def part(self, which: Any) -> Moves:
        """Return some of the moves, chosen as numpy's arrays let one choose."""
        return Moves(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def committed(self) -> Integers:
        """When COMMIT arrived."""
        return self.stopped + self.downtime + self.commit


def in_turns(moves: Moves) -> tuple[Moves, list[slice]]:
    """Return the moves in the order of turns: each guest's first move, then the second moves, and so on; and
    where each turn is.
    """
    order = np.argsort(moves.guest, kind="stable")
    guests = moves.guest[order]
    turn = np.arange(len(order)) - np.searchsorted(guests, guests)
    borders = [0, *np.cumsum(np.bincount(turn)).tolist()]
    return moves.part(order[np.argsort(turn, kind="stable")]), [
        slice(first, last) for first, last in pairwise(borders)
    ]
