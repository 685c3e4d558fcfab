"""What the engines have in common: how they are asked to run a thread's instructions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from chronovisor.engine.concrete import Stop
from chronovisor.engine.hypercalls import HypercallProgram
from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.state import Thread
from chronovisor.engine.statistics import Instructions
from chronovisor.memory.watched import Watchpoint


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

    def share_words(self, number: int, words: memoryview) -> None:
        """Have programs set these words of 64 bits as the table of that number. No thread may run."""

    def exchange_word(self, table: int, number: int, expected: int, new: int) -> bool:
        """Set a word of a table if it still is as expected; whether it was, and there is such a word.

        One step for all threads.
        """

    def enter_decrementer(self, state: Thread, wanted: bool) -> bool:
        """Have the thread's next run enter the decrementer's interrupt in virtual time by itself, if it is
        wanted and the engine can; return whether it will. If not, no run may pass the moment at which the
        decrementer is due.
        """

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute at most `budget` instructions."""

    def break_at(self, addresses: Collection[int]) -> None:
        """Have runs stop before the instructions at these real addresses, and at no others.

        No thread may be running.
        """

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Have runs stop before instructions that access these places, and no others. No thread may run."""

    def step(self, state: Thread) -> Stop:
        """Execute one instruction, even at a breakpoint."""

    def forget_code(self, address: int, size: int) -> None:
        """Decode anew what was decoded of these real addresses: memory was changed from outside.

        Threads may run.
        """

    def interrupt(self, state: Thread, name: str, cause: int = 0) -> None:
        """Enter an interrupt that came from outside, between two instructions."""

    def forget_translations(self) -> None:
        """Have every thread look its translations up anew."""
