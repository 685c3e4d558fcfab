"""How a machine does again what it did: how far, and over what a debugger has set on the way.

In virtual time one vCPU executes at a time, so a number of instructions of all vCPUs names a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chronovisor.memory.watched import Watchpoint


class Passage(NamedTuple):
    """A vCPU has gone over a break- or watchpoint."""

    vcpu: int
    executed: int
    """How many instructions it had executed."""
    watchpoint: Watchpoint | None
    """None for a breakpoint."""


class Repetition:
    """One for all vCPUs of a machine. `total` is how many instructions they have executed together."""

    def __init__(self, total: Callable[[], int]) -> None:
        self._total = total
        self.end: int | None = None
        """Of how many instructions of all vCPUs the runs end behind; None for no such number."""
        self.end_of: dict[int, int] = {}
        """Of how many instructions of its own a vCPU's run ends behind, by its number."""
        self.passes_before: int | None = 0
        """Before how many instructions break- and watchpoints are gone over; None for all of them."""
        self.passed: Passage | None = None
        """The last that was gone over."""

    def left(self) -> int | None:
        """How many instructions are left until the end; None if there is no end."""
        return None if self.end is None else self.end - self._total()

    def passes(self, passage: Passage) -> bool:
        """Whether a vCPU is to go over a break- or watchpoint; if so, it is noted."""
        passes = self.passes_before is None or self._total() < self.passes_before
        if passes:
            self.passed = passage
        return passes
