"""Time and shared memory below machine code whose timing is unknown: what the symbolic evaluator runs it on.

The host's clock goes on by an unknown number of ticks before each access to time, fewer than `limit` in all.
The timebase is that clock plus an adjustment, which a write to TBU40, TBU or TBL changes. A word of memory
that others share may be another before each load but the first of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import z3

from chronovisor.engine.symbolic import Addresses, SymbolicState
from chronovisor.engine.symbolic.terms import bit, known
from chronovisor.isa.bits import LPCR
from chronovisor.isa.decode import decode
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.registers import SPR_READ, SPR_WRITE
from chronovisor.proof.code.assumptions import Compared, Word
from chronovisor.proof.code.image import CodeImage
from chronovisor.timebase.types import LOW_BITS, MASK64

HOST_AT_START: Final = "TB"
"""The unknown that is the timebase where the range begins."""
MOST_STEPS: Final = 4096
"""How many instructions are followed, on all paths together."""
RETURNED: Final = -1
"""The address of what happens when the code has returned."""
_LARGE = 56
_DOUBLEWORD, _LONGEST = 8, 16
"""Bytes of a shared word, and of the longest access of one instruction that says where it reaches."""
_DOWN, _UP = ("DEC", "HDEC"), ("VTB", "PURR", "SPURR")
LOADS: Final = frozenset({"load", "load_reserved"})
STORES: Final = frozenset({"store", "store_conditional", "zero_block"})


class UnsupportedError(Exception):
    """Something that the prover does not follow; the text says what and where."""


class CodeAddresses(Addresses):
    """Addresses as the code has them, each a byte of its own; the words at these `places` lie apart."""

    mask = MASK64

    def __init__(self, apart: Sequence[tuple[z3.BitVecRef, z3.BitVecRef]]) -> None:
        self._distances = [z3.simplify(one - other) for one, other in apart]
        # By the terms' numbers; the terms are kept, so that no number is given twice.
        self._known: dict[int, tuple[z3.BitVecRef, bool]] = {}
        self.bytes: list[tuple[z3.BitVecRef, z3.BitVecRef]] = []
        """The bytes read that were there from the beginning: address and value."""

    def apart(self, one: z3.BitVecRef, other: z3.BitVecRef) -> bool:
        """Whether two terms are known never to be one address."""
        distance = z3.simplify(one - other)
        known = self._known.get(distance.get_id())
        if known is None:
            known = distance, self._is_never_0(distance)
            self._known[distance.get_id()] = known
        return known[1]

    def _is_never_0(self, distance: z3.BitVecRef) -> bool:
        if z3.is_bv_value(distance):
            return bool(distance.as_long() != 0)
        for words in self._distances:
            # Two words are no less than a word's bytes from each other, either way round.
            for more in (z3.simplify(distance - words), z3.simplify(distance + words)):
                if z3.is_bv_value(more) and abs(more.as_signed_long()) < _DOUBLEWORD:
                    return True
        return False

    def give(self, address: z3.BitVecRef, value: z3.BitVecRef, little: bool) -> None:
        """Have memory begin with these bytes of a word, which nothing is known of yet."""
        for place in range(_DOUBLEWORD):
            low = 8 * (place if little else _DOUBLEWORD - 1 - place)
            there = z3.simplify(address + place)
            if any(not self.apart(there, other) for other, _ in self.bytes):
                return
            self.bytes.append((there, z3.simplify(z3.Extract(low + 7, low, value))))

    def initial(self, memory: z3.ArrayRef, address: z3.BitVecRef) -> z3.BitVecRef:
        """The byte that memory had before anything was stored: without arrays, which are slow."""
        value: z3.BitVecRef = z3.BitVec(f"byte{len(self.bytes)}", 8)
        for there, byte in self.bytes:
            if there.eq(address):
                return byte
            if not self.apart(there, address):
                value = z3.If(there == address, byte, value)
        self.bytes.append((address, value))
        return value


@dataclass(frozen=True, slots=True)
class Event:
    """What the world around the code did before an instruction: time passed, or a shared word changed.

    It is part of the runs in which `path` holds. `value`: the ticks since the range began, or the new word.
    """

    address: int
    path: z3.BoolRef
    value: z3.BitVecRef
    changes_memory: bool


def operations(found: Instruction, word: int) -> frozenset[str]:
    """Return the operations that an instruction's meaning is made of."""
    return frozenset(statement.op for statement in found.program(found.decode_statics(word)).statements())


def effective_address(found: Instruction, word: int, state: SymbolicState) -> z3.BitVecRef | None:
    """Return what a load or store of this word reaches, from its fields; None where they do not say."""
    names = {field.name for field in found.fields}
    if "RA" not in names:
        return None
    updates = found.mnemonic.rstrip("x").endswith("u")
    register = FIELDS["RA"].decode(word)
    base = state.gpr[register] if register or updates else z3.BitVecVal(0, 64)
    for name in ("D", "DS", "DQ"):
        if name in names:
            return z3.simplify(base + FIELDS[name].decode(word))
    return z3.simplify(base + state.gpr[FIELDS["RB"].decode(word)]) if "RB" in names else base


class CodeTime:
    """The live registers of `chronovisor.engine.symbolic.SymbolicLive`, and what else happens meanwhile."""

    def __init__(
        self,
        image: CodeImage,
        limit: int,
        shared: Word | None,
        always: tuple[Compared, ...],
        deadline: float,
    ) -> None:
        self.events: list[Event] = []
        self.stores: dict[int, z3.BitVecRef | None] = {}
        """The effective addresses of the stores passed, by the address of the instruction."""
        self.passed: set[int] = set()
        """The instructions passed."""
        self._image = image
        self._limit = limit
        self._width = limit.bit_length()
        self._shared = shared
        self._always = always
        self._deadline = deadline
        self._steps = 0
        self._before: SymbolicState | None = None

    def begin(self, state: SymbolicState) -> None:
        """Give the state in which the range begins its live registers."""
        state.live = {
            "elapsed": z3.BitVecVal(0, 64),
            "adjust": z3.BitVecVal(0, 64),
            "halves written": z3.BitVecVal(0, 1),
            "shared seen": z3.BitVecVal(0, 1),
            **{name: z3.BitVec(name, 64) for name in (*_DOWN, *_UP)},
        }
        self._before = state.copy()

    def passes(self, state: SymbolicState) -> None:
        """Look at the instruction to come: what cannot be followed, and what others do before it."""
        address = known(state["CIA"])
        assert address is not None
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise UnsupportedError(f"it goes on for more than {MOST_STEPS} instructions")
        if time.monotonic() > self._deadline:
            raise TimeoutError
        found, word = self._followed(address)
        self.passed.add(address)
        done = operations(found, word)
        if done & STORES:
            self.stores[address] = effective_address(found, word, state)
        if done & LOADS and self._shared is not None:
            reached = effective_address(found, word, state)
            if self._may_overlap(reached, self._shared, state):
                self._others_write(self._shared, reached, state, address)

    def _followed(self, address: int) -> tuple[Instruction, int]:
        word = self._image.word(address)
        assert word is not None
        found, place = decode(word), self._image.place(address)
        if found is None or not found.implemented:
            raise UnsupportedError(f"at {place}: {word:#010x} is no instruction that has a meaning here")
        relocation = self._image.relocations.get(address)
        if relocation is not None:
            raise UnsupportedError(
                f"at {place}: the instruction is complete only when it is linked ({relocation.kind} of "
                f"{relocation.symbol})"
            )
        if found.mnemonic in ("mtspr", "mfspr"):
            number = FIELDS["SPR"].decode(word)
            if number not in (SPR_WRITE if found.mnemonic == "mtspr" else SPR_READ):
                raise UnsupportedError(f"at {place}: special purpose register {number} has no meaning here")
        return found, word

    def _may_overlap(self, reached: z3.BitVecRef | None, shared: Word, state: SymbolicState) -> bool:
        assert self._before is not None
        if reached is None:
            return True
        return not all(
            state.addresses.apart(z3.simplify(reached + near), shared.address(self._before))
            for near in range(1 - _LONGEST, _DOUBLEWORD)
        )

    def _others_write(
        self, shared: Word, reached: z3.BitVecRef | None, state: SymbolicState, address: int
    ) -> None:
        assert self._before is not None
        where, little = shared.address(self._before), self._image.little
        now = state.bytes_at(where, _DOUBLEWORD, little)
        fresh: z3.BitVecRef = z3.BitVec(f"changed{len(self.events)}", 64)
        seen = state.live["shared seen"]
        for always in self._always:
            fresh = always.given(fresh)
            state.assume(always.holds(fresh))
        value = z3.simplify(z3.If(seen == 1, fresh, now))
        if not z3.is_false(z3.simplify(seen == 1)):
            state.memory = z3.simplify(state.put_bytes(where, value, little))
            self.events.append(Event(address, state.path, value, changes_memory=True))
        seen_now = z3.BoolVal(True) if reached is None else reached == where
        state.live["shared seen"] = z3.simplify(seen | bit(seen_now))

    # Time

    def ticks_pass(self, state: SymbolicState) -> None:
        """Let an unknown number of ticks go by."""
        place = known(state["CIA"])
        address = RETURNED if place is None else place
        before, at = state.live["elapsed"], z3.BitVec(f"elapsed{len(self.events)}", self._width)
        now = z3.ZeroExt(64 - self._width, at)
        state.assume(z3.And(z3.UGE(now, before), z3.ULT(now, self._limit)))
        state.live["elapsed"] = now
        self.events.append(Event(address, state.path, now, changes_memory=False))

    def _host(self, state: SymbolicState) -> z3.BitVecRef:
        """The host's clock: a short sum of its low bits, and what that carries, which is proven sooner."""
        start, width = z3.BitVec(HOST_AT_START, 64), max(LOW_BITS, self._width) + 1
        elapsed = z3.Extract(width - 1, 0, state.live["elapsed"])
        low = z3.ZeroExt(width - LOW_BITS, z3.Extract(LOW_BITS - 1, 0, start)) + elapsed
        carried = z3.ZeroExt(64 - width, z3.Extract(width - 1, LOW_BITS, low))
        return z3.Concat(z3.Extract(63, LOW_BITS, start) + carried, z3.Extract(LOW_BITS - 1, 0, low))

    def timebase(self, state: SymbolicState) -> z3.BitVecRef:
        """Return the timebase of the instant of the latest access."""
        host, adjust = self._host(state), state.live["adjust"]
        if known(z3.Extract(LOW_BITS - 1, 0, adjust)) != 0:
            return host + adjust
        # Shorter sums are proven sooner.
        upper = z3.Extract(63, LOW_BITS, host) + z3.Extract(63, LOW_BITS, adjust)
        return z3.Concat(upper, z3.Extract(LOW_BITS - 1, 0, host))

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        """Return the register's value after unknown ticks."""
        self.ticks_pass(state)
        if name in ("TB", "TBU"):
            now = self.timebase(state)
            return z3.Extract(63, 32, now) if name == "TBU" else now
        if name in _UP:
            return state.live[name] + state.live["elapsed"]
        value = state.live[name] - state.live["elapsed"]
        wide = z3.SignExt(64 - _LARGE, z3.Extract(_LARGE - 1, 0, value))
        return wide if name == "HDEC" else z3.If(_is_large(state), wide, value & 0xFFFFFFFF)

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        """Write the register, after unknown ticks, where `when` holds."""
        self.ticks_pass(state)
        live, elapsed = state.live, state.live["elapsed"]
        if name in _UP:
            self._put(state, name, value - elapsed, when)
            return
        if name in _DOWN:
            width = z3.If(_is_large(state), _signed(value, _LARGE), _signed(value, 32))
            wide = _signed(value, _LARGE) if name == "HDEC" else width
            self._put(state, name, wide + elapsed, when)
            return
        was = self.timebase(state)
        # The timebase takes on a field of the value; the adjustment changes by what the field does.
        first = LOW_BITS if name == "TBU40" else 32
        if name == "TBL":
            change = z3.Concat(z3.Extract(63, 32, was), value) - was
        else:
            field = z3.Extract(63, first, value) if name == "TBU40" else value
            change = z3.Concat(field - z3.Extract(63, first, was), z3.BitVecVal(0, first))
        if name != "TBU40":
            self._put(state, "halves written", z3.BitVecVal(1, 1), when)
        self._put(state, "adjust", live["adjust"] + change, when)

    @staticmethod
    def _put(state: SymbolicState, name: str, value: z3.BitVecRef, when: z3.BoolRef) -> None:
        state.live[name] = z3.simplify(z3.If(when, value, state.live[name]))


def _is_large(state: SymbolicState) -> z3.BoolRef:
    return state["LPCR"] & int(LPCR.LD) != 0


def _signed(value: z3.BitVecRef, width: int) -> z3.BitVecRef:
    return z3.SignExt(64 - width, z3.Extract(width - 1, 0, value))
