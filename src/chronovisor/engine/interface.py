"""What the engines have in common: how they are asked to run a thread's instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chronovisor.engine.concrete import Stop
from chronovisor.engine.hypercalls import HypercallProgram
from chronovisor.engine.state import LiveRegisters, Thread
from chronovisor.engine.statistics import Instructions


class Engine(Protocol):
    """Runs the instructions of all threads on one memory."""

    budget: int
    """The most instructions to execute in real time between two looks at deadlines."""

    @property
    def instructions(self) -> Instructions:
        """How many instructions the threads have executed, by what executed them; none may be running."""

    def thread(self, live: LiveRegisters) -> Thread:
        """Return a new thread in its reset state."""

    def answer_hypercalls(self, programs: Sequence[HypercallProgram]) -> None:
        """Have threads that are made from now on answer hypercalls by programs, as their ``answers`` say."""

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute at most `budget` instructions."""

    def interrupt(self, state: Thread, name: str, cause: int = 0) -> None:
        """Enter an interrupt that came from outside, between two instructions."""

    def forget_translations(self) -> None:
        """Have every thread look its translations up anew."""
