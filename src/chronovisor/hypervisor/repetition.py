"""How a machine does again what it did: until when its vCPUs go over what a debugger has set."""

from __future__ import annotations

from typing import NamedTuple

from chronovisor.memory.watched import Watchpoint
from chronovisor.timebase.types import SourceTime


class Passage(NamedTuple):
    """A vCPU has gone over a break- or watchpoint."""

    vcpu: int
    executed: int
    """How many instructions it had executed."""
    tick: SourceTime
    watchpoint: Watchpoint | None
    """None for a breakpoint."""


class Repetition:
    """One for all vCPUs of a machine."""

    def __init__(self, until: SourceTime | None) -> None:
        self._until = until
        self.passed: Passage | None = None
        """The last passage."""

    def passes(self, passage: Passage) -> bool:
        """Whether the vCPU is to go over it; if so, it is noted."""
        passes = self._until is None or passage.tick < self._until
        if passes:
            self.passed = passage
        return passes
