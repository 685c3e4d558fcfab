"""What is known of how hot a guest's pages are, and a page that is hot: a task for the worker."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import ReferenceType

from chronovisor.engine.native.layout import PAGE_SHIFT, PageNote
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.state import CACHE_BLOCK

#: Of so many samples of a guest each counts half as much as the one after them: what was hot once cools down.
HALF_LIFE = 1024
_ALL_BLOCKS = (1 << (1 << PAGE_SHIFT) // CACHE_BLOCK) - 1


class Counts:
    """What is counted of one guest."""

    def __init__(self) -> None:
        #: Held while samples are counted: each of the guest's threads hands in its own.
        self.counting = threading.Lock()
        self.samples = 0
        """How many samples were taken."""
        self.regions = 0
        """How many regions were put in."""


@dataclass(eq=False)
class Heat:
    """What is known of a page whose code has this version."""

    version: int
    note: PageNote
    """What native code knows of the page, and counts."""
    samples: Counter[int] = field(default_factory=Counter)
    covered: set[int] = field(default_factory=set)
    missed: Counter[int] = field(default_factory=Counter)
    """Where handlers took over that came to covered code."""
    missed_since: int = 0
    """The guest's sample that was the first of them."""
    put: set[int] = field(default_factory=set)
    """The regions that were put in, by what Python's `id` says of them: they stay as long as the process."""
    started: set[int] = field(default_factory=set)
    """Where regions were asked to begin."""
    asked: bool = False
    """Whether its regions were looked for on disk."""
    _covered_blocks: int = 0
    _waits: bool = False
    _warmth: float = 0.0
    _moment: int = 0

    def warm(self, moment: int) -> None:
        """Take a sample that asks for a region: the guest's sample of this number."""
        self._warmth, self._moment = self.warmth(moment) + 1, moment

    def take_missed(self) -> tuple[int, ...]:
        """Where handlers took over, in order: regions are asked to begin there now.

        The caller holds `Counts.counting`.
        """
        missed, self.missed = self.missed, Counter()
        self.started.update(missed)
        return tuple(sorted(missed))

    @property
    def waits(self) -> bool:
        """Whether a region is being made.

        Until then samples of blocks that have no regions tell no more than how hot the page is.
        """
        return self._waits

    @waits.setter
    def waits(self, waits: bool) -> None:
        self._waits = waits
        self.note.quiet = _ALL_BLOCKS & ~self._covered_blocks if waits else 0

    def cover(self, offsets: Iterable[int]) -> None:
        """Note that code at these offsets has regions. It counts when the page waits next."""
        for offset in offsets:
            self.covered.add(offset)
            self._covered_blocks |= 1 << offset // CACHE_BLOCK

    def warmth(self, moment: int) -> float:
        """How many samples came lately, when the guest's latest has this number."""
        if counted := self.note.samples:
            # A sample that comes just now may be lost.
            self.note.samples = 0
            self._warmth, self._moment = self.warmth(moment) + counted, moment
        return self._warmth * math.exp2((self._moment - moment) / HALF_LIFE)


@dataclass(frozen=True, eq=False)
class Task:
    """A page that is hot."""

    counts: Counts
    pages: ReferenceType[DecodedPages]
    """A task that waits keeps no guest that is gone, whose memory they hold."""
    heat: Heat
    page: int
    """The number of the home page."""
    around: tuple[int, ...]
    """The distances of the pages that a region may have."""
    hot: int | None
    """The offset for which a region is to be compiled; None: take what is on disk."""
    starts: tuple[int, ...] = ()
    """The offsets at which the region is to begin, if the tier knows."""

    @property
    def warmth(self) -> float:
        """How much of its time the guest lately spent in the page."""
        return self.heat.warmth(self.counts.samples)
