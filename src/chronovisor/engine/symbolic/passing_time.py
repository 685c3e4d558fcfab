"""A model of time for symbolic runs: any number of ticks may go by between two instructions."""

from __future__ import annotations

import z3

from chronovisor.engine.symbolic.state import SymbolicState
from chronovisor.isa.bits import LPCR

_LOW = 24
_LARGE = 56


def _large(state: SymbolicState) -> z3.BoolRef:
    return state["LPCR"] & int(LPCR.LD) != 0


def _signed(value: z3.BitVecRef, width: int) -> z3.BitVecRef:
    return z3.SignExt(64 - width, z3.Extract(width - 1, 0, value))


class PassingTime:
    """The timebase as the machine code of a core sees it, with any ticks between its instructions.

    An unknown number of ticks goes by before each instruction, up to ``longest`` (None: any). A
    write to TBU40 replaces the upper 40 bits and leaves the lower 24 (Power ISA 3.0B Book III 7.2); TBU
    and TBL are the halves. DEC, HDEC count down by the same ticks; VTB, PURR and SPURR count up. DEC is
    32 bits wide if LPCR[LD] is 0, else as wide as HDEC: 56 bits.
    ``ticks`` lists what went by, in the order of execution.
    """

    _UP = ("TB", "VTB", "PURR", "SPURR")
    _DOWN = ("DEC", "HDEC")

    def __init__(self, longest: int | None = None, suffix: str = "") -> None:
        self.longest = longest
        self.suffix = suffix
        self.ticks: list[z3.BitVecRef] = []

    def begin(self, state: SymbolicState) -> None:
        """Give a state its live registers, unknown and named as they are."""
        for name in (*self._UP, *self._DOWN):
            state.live[name] = z3.BitVec(name + self.suffix, 64)

    def passes(self, state: SymbolicState) -> None:
        """Let an unknown number of ticks go by."""
        went = z3.BitVec(f"ticks{len(self.ticks)}{self.suffix}", 64)
        self.ticks.append(went)
        if self.longest is not None:
            state.assume(z3.ULE(went, self.longest))
        for name in self._UP:
            state.live[name] = z3.simplify(state.live[name] + went)
        for name in self._DOWN:
            state.live[name] = z3.simplify(state.live[name] - went)

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        """The register's value now."""
        if name == "TBU":
            return z3.Extract(63, 32, state.live["TB"])
        value = state.live[name]
        if name == "DEC":
            return z3.If(_large(state), _signed(value, _LARGE), value & 0xFFFFFFFF)
        return _signed(value, _LARGE) if name == "HDEC" else value

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        """Set the register if ``when`` holds."""
        timebase = state.live["TB"]
        if name == "TBU40":
            name, value = "TB", z3.Concat(z3.Extract(63, _LOW, value), z3.Extract(_LOW - 1, 0, timebase))
        elif name == "TBU":
            name, value = "TB", z3.Concat(value, z3.Extract(31, 0, timebase))
        elif name == "TBL":
            name, value = "TB", z3.Concat(z3.Extract(63, 32, timebase), value)
        elif name == "DEC":
            value = z3.If(_large(state), _signed(value, _LARGE), _signed(value, 32))
        elif name == "HDEC":
            value = _signed(value, _LARGE)
        state.live[name] = z3.simplify(z3.If(when, value, state.live[name]))
