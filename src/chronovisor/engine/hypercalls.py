"""Hypercalls that engines answer: programs in the notation of instructions, made by a hypervisor.

An engine knows no interface between guests and hypervisors. It looks `sc 1` up by the number in r3 and runs
the program that the hypervisor gave it, in every evaluator alike; the call itself counts as one instruction.
A program may decline. Then, for any other number, and for `sc 1` in problem state, the engine hands the call
up (:class:`~chronovisor.engine.concrete.Reason`), with nothing changed.

A program's state is registers, and the words that the thread shares with its hypervisor
(:class:`SharedWords`). The hypervisor may change these words while the thread runs: a program therefore
changes one by an exchange, and declines if the exchange fails.
"""

from __future__ import annotations

import threading
from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Protocol

from chronovisor.isa.registers import SHARED_WORDS
from chronovisor.isa.values import Program

#: The register with a hypercall's number.
NUMBER_REGISTER = 3

#: The number of the shared word that can raise the thread's external interrupt: see `Thread.line_mask`.
LINE_WORD = 0


@dataclass(frozen=True, slots=True, eq=False)
class HypercallProgram:
    """What answers a hypercall. A thread's ``answers`` has the bit ``place`` if the program may be used."""

    number: int
    place: int
    program: Program


class SharedWords(Protocol):
    """Words of 64 bits that a thread's programs and its hypervisor read and change, from any thread."""

    words: MutableSequence[int]
    """All of them in order. One that somebody else may change now is only read here."""

    def exchange(self, number: int, expected: int, new: int) -> bool:
        """Set a word if it still is as expected; whether it was. One step for all threads."""


class Sharing(Protocol):
    """A thread, as far as it shares words with its hypervisor."""

    shared: SharedWords


class PlainSharedWords:
    """Shared words of a thread that only Python executes."""

    __slots__ = ("_changing", "words")

    def __init__(self) -> None:
        self.words: MutableSequence[int] = [0] * SHARED_WORDS
        self._changing = threading.Lock()

    def exchange(self, number: int, expected: int, new: int) -> bool:
        """Set a word if it still is as expected; whether it was."""
        with self._changing:
            if self.words[number] != expected:
                return False
            self.words[number] = new
            return True
