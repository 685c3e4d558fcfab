"""How often programs leave regions, by the kind of exit. Code that counts is put into regions for it."""

from __future__ import annotations

import ctypes

import pytest
from llvmlite import ir

from chronovisor.engine.native.emitter import I64, POINTER, word
from chronovisor.engine.native.layout import Left
from chronovisor.engine.regions.exits import Exit
from chronovisor.engine.regions.lowering import EntryLowering

_MOST = 64
#: Why an instruction is left undone: only floating point is the concrete evaluator's at times.
_UNDONE = ("INTERRUPT", "SLOW")
#: Every exit that programs can take. No instruction of a region hands the thread back once it is done: those
#: that do so are the handlers' alone.
EVERY = frozenset(f"{Exit.UNDONE.name} {why}" for why in _UNDONE) | frozenset(
    exit.name for exit in Exit if exit not in (Exit.UNDONE, Exit.DONE)
)


class Exits:
    """Counters of the exits of regions that are compiled from now on in this process."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._counters = (ctypes.c_uint64 * _MOST)()
        self._numbers: dict[str, int] = {}
        self._first: dict[str, int] = {}

        def taken(low: EntryLowering, exit: Exit, why: Left | ir.Value | None) -> None:
            number = self._numbers.setdefault(_name(low, exit, why), len(self._numbers))
            b, at = low.b, ctypes.addressof(self._counters) + 8 * number
            place = b.inttoptr(word(at), POINTER)
            b.store(b.add(b.load(place, typ=I64), word(1)), place)

        patch.setattr(EntryLowering, "_taken", taken)

    @property
    def counts(self) -> dict[str, int]:
        """How often each exit was taken; one that was only compiled has 0."""
        return {name: self._counters[number] for name, number in self._numbers.items()}

    def note(self, seed: int) -> None:
        """The program of this seed has run: remember it for the exits that it was the first to take."""
        for name, count in self.counts.items():
            if count:
                self._first.setdefault(name, seed)

    def table(self) -> str:
        """The counts for people, each with the first seed whose program took the exit."""
        lines = [f"{'taken':>9}  {'first by':>8}  exit"]
        for name, count in sorted(self.counts.items()):
            lines.append(f"{count:>9,}  {self._first.get(name, '-'):>8}  {name}")
        return "\n".join(lines)

    def check(self) -> None:
        """Print the table; AssertionError unless each exit was taken, and no other exit was compiled."""
        print(f"\n{self.table()}")
        never = EVERY - {name for name, count in self.counts.items() if count}
        assert not never, f"never taken: {', '.join(sorted(never))}\n{self.table()}"
        assert self.counts.keys() == EVERY


def _name(low: EntryLowering, exit: Exit, why: Left | ir.Value | None) -> str:
    if exit is not Exit.UNDONE:
        return exit.name
    assert isinstance(why, Left)
    return f"{exit.name} {why.name}"
