"""The symbolic evaluator computes, with numbers put in for its unknowns, what the concrete one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import pytest
import z3
from soak import new_seed

from chronovisor.engine import python_source
from chronovisor.engine.concrete import operation
from chronovisor.engine.endings import GuestInterrupt, Resync
from chronovisor.engine.python_source import Hypercall
from chronovisor.engine.state import ThreadState
from chronovisor.engine.symbolic import evaluator, terms
from chronovisor.engine.symbolic.state import STORED, SymbolicState
from chronovisor.isa.bits import MSR
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.interrupts import HYPERCALL
from chronovisor.isa.operations import OPERATIONS
from chronovisor.isa.registers import FILES, REGISTERS
from chronovisor.memory.guest_memory import GuestMemory

from .drawn import ALL, LIVE, MEMORY_SIZE, Drawn, draw_state, draw_word, source
from .term_source import function_of

STATES = 20
"""States that are drawn for each word."""


def test_every_operation_has_a_reading() -> None:
    assert {*terms.EXPRESSIONS, "operand", "lane", *evaluator.STATEMENTS} == OPERATIONS.keys()
    assert {*python_source.EXPRESSIONS, *python_source.STATEMENTS} == OPERATIONS.keys()


class _Live:
    """Live registers that stand still, and a record of what was written."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.written: list[tuple[str, int]] = []

    def read(self, name: str) -> int:
        return self.values[name]

    def write(self, name: str, value: int) -> None:
        self.written.append((name, value))

    def random(self) -> int:
        return 0x5EED

    def lend(self, time: object) -> None:
        raise AssertionError("only native code borrows time")

    take_back = lend


class _SymbolicLive:
    """The same as unknowns."""

    def __init__(self) -> None:
        self.written: list[tuple[str, z3.BitVecRef, z3.BoolRef]] = []

    def passes(self, state: SymbolicState) -> None:
        pass

    def read(self, name: str, state: SymbolicState) -> z3.BitVecRef:
        return z3.BitVec(f"live_{name}", REGISTERS[name].width)

    def write(self, name: str, value: z3.BitVecRef, when: z3.BoolRef, state: SymbolicState) -> None:
        self.written.append((name, value, when))


class _NoCode:
    def forget(self, address: int) -> None:
        pass

    def forget_translations(self) -> None:
        pass


def _byte(address: int) -> int:
    return ((address * 0x9E3779B1) >> 16) & 0xFF


_INITIAL = bytes(_byte(address) for address in range(MEMORY_SIZE))
_FIXED = int(MSR.SF | MSR.LE)
_NAMES = {file.name: tuple(f"{file.prefix}{n}" for n in range(file.count)) for file in FILES.values()}
_NUMBERED = {name: file.width for file in FILES.values() for name in _NAMES[file.name]}


class Disagreement(AssertionError):
    pass


class Meaning:
    """What the symbolic evaluator makes of one instruction word in one mode: functions of the state."""

    def __init__(self, instruction: Instruction, word: int, mode: tuple[bool, bool]) -> None:
        self.instruction, self.word, self.mode = instruction, word, mode
        state = SymbolicState.unknown(memory_size=MEMORY_SIZE)
        state["MSR"] = (state["MSR"] & ~_FIXED) | (int(MSR.SF) * mode[0]) | (int(MSR.LE) * mode[1])
        before = self._registers(state)
        live = _SymbolicLive()
        self.outcome = evaluator.execute(instruction, word, state, live)
        after = self._registers(state)
        program = instruction.program(instruction.decode_statics(word), *mode)
        # No two draw the same random number.
        self.is_random = "random" in {one.op for one in program.statements()}
        self.changed = {
            name: term
            for name, term in after.items()
            if not term.eq(before[name]) and not (self.is_random and name in _NUMBERED)
        }
        self.written = live.written
        held = state.reservation
        self.terms = [
            *self.changed.values(),
            *(term for one in self.outcome.raised for term in (one.condition, one.cause)),
            *(term for _, value, when in live.written for term in (when, value)),
            *(self.outcome.resync, self.outcome.completed, state.memory),
            *(held.held, held.address, held.size, held.value),
        ]
        self.function = function_of(self.terms, _byte)

    @staticmethod
    def _registers(state: SymbolicState) -> dict[str, z3.BitVecRef]:
        numbered = {
            name: term
            for file, names in _NAMES.items()
            for name, term in zip(names, state.files[file], strict=True)
        }
        return {**state.registers, **numbered}

    @staticmethod
    def values(drawn: Drawn) -> dict[str, Any]:
        """The unknowns in one state."""
        address, size, value = drawn.reservation or (0, 0, 0)
        return {
            **drawn.registers,
            **{f"live_{name}": number for name, number in drawn.live.items()},
            "memory": {},
            "reserved": drawn.reservation is not None,
            "reserved_address": address,
            "reserved_size": size,
            "reserved_value": value,
        }


class Comparison:
    """States of one instruction word, given to both evaluators."""

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.live = _Live()
        self.memory = GuestMemory(MEMORY_SIZE)
        self.memory.write(0, _INITIAL)
        self.state = ThreadState(self.memory, self.live, _NoCode())
        self.handler, self.operands = operation(meaning.word, *meaning.mode)

    def check(self, drawn: Drawn) -> None:
        drawn = self._load(drawn)
        ended = self._run_concrete()
        meaning, state = self.meaning, self.state
        found = iter(meaning.function(meaning.values(drawn)))

        registers = {**drawn.registers, **dict(zip(meaning.changed, found, strict=False))}
        for name in STORED:
            self._same(name, registers[name], state.get(name))
        if not meaning.is_random:
            for file in FILES.values():
                expected = [registers[name] for name in _NAMES[file.name]]
                self._same(f"{file.name}s", expected, list(getattr(state, file.attribute)))

        raised = [(one.name, cause) for one in meaning.outcome.raised for cause in self._where(found)]
        written = [(name, value) for name, _, _ in meaning.written for value in self._where(found)]
        resync, completed, stored, *reservation = found
        if resync:
            raised.append(("RESYNC", 0))
        self._same("how it ends", raised, ended)
        self._same("completion", completed, ended in ([], [("RESYNC", 0)]))
        self._same("live registers written", written, self.live.written)
        self._same("the reservation", tuple(reservation[1:]) if reservation[0] else None, state.reservation)
        self._check_memory(stored)

    def _load(self, drawn: Drawn) -> Drawn:
        reservation = drawn.reservation
        if reservation is not None and reservation[0] + 16 <= MEMORY_SIZE and reservation[2] & 1:
            # Half of the reservations still hold what was read.
            address, size, _ = reservation
            value = self.memory.load(address, size, drawn.mode[1])
            drawn = replace(drawn, reservation=(address, size, value))
        state = self.state
        for file in FILES.values():
            getattr(state, file.attribute)[:] = [drawn.registers[name] for name in _NAMES[file.name]]
        for name in STORED:
            state.set(name, drawn.registers[name])
        state.reservation = drawn.reservation
        self.live.values, self.live.written = drawn.live, []
        return drawn

    def _run_concrete(self) -> list[tuple[str, int]]:
        try:
            self.handler(self.state, *self.operands)
        except GuestInterrupt as raised:
            return [(raised.name, raised.cause)]
        except Hypercall:
            return [(HYPERCALL, 0)]
        except Resync:
            return [("RESYNC", 0)]
        return []

    @staticmethod
    def _where(found: Any) -> list[int]:
        """The next value, where the condition before it holds."""
        condition, value = islice(found, 2)
        return [value] if condition else []

    def _check_memory(self, stored: dict[int, int]) -> None:
        after = self.memory.read(0, MEMORY_SIZE)
        if not stored and after == _INITIAL:
            return
        expected = bytearray(_INITIAL)
        for address, byte in stored.items():
            expected[address] = byte
        self._same("memory", bytes(expected) == after, True)
        for address in stored:
            self.memory.write(address, _INITIAL[address : address + 1])

    def _same(self, what: str, symbolic: object, concrete: object) -> None:
        if symbolic != concrete:
            meaning = self.meaning
            raise Disagreement(
                f"{meaning.instruction.mnemonic} {meaning.word:#010x} in mode {meaning.mode}: "
                f"{what}: symbolic {symbolic}, concrete {concrete}"
            )


def check_by_z3(meaning: Meaning, drawn: Drawn) -> None:
    """The functions give what z3 itself does when the numbers are put in."""
    values, found = meaning.values(drawn), meaning.function(meaning.values(drawn))
    place = z3.BitVec("place", 64)
    memory = z3.Lambda([place], z3.Extract(7, 0, z3.LShR(place * 0x9E3779B1, 16)))
    widths = {name: REGISTERS[name].width for name in STORED} | _NUMBERED
    widths |= {f"live_{name}": REGISTERS[name].width for name in LIVE}
    widths |= {"reserved_address": 64, "reserved_size": 8, "reserved_value": 128}
    put_in = [(z3.BitVec(name, width), z3.BitVecVal(values[name], width)) for name, width in widths.items()]
    put_in.append((z3.Bool("reserved"), z3.BoolVal(values["reserved"])))
    put_in.append((z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(8)), memory))
    for term, value in zip(meaning.terms, found, strict=True):
        if not z3.is_array(term):
            by_z3 = z3.simplify(z3.substitute(term, *put_in))
            assert z3.is_true(by_z3) if value is True else z3.is_false(by_z3) or by_z3.as_long() == value


def compare(seed: int, instructions: Sequence[Instruction]) -> int:
    """Draw a word of each instruction, and states; return how many were compared."""
    for instruction in instructions:
        random = source(seed, instruction)
        try:
            mode = bool(random.getrandbits(2)), bool(random.getrandbits(1))
            word = draw_word(random, instruction)
            comparison = Comparison(Meaning(instruction, word, mode))
            if not random.getrandbits(2):
                check_by_z3(comparison.meaning, draw_state(random, instruction, word, mode))
            for _ in range(STATES):
                comparison.check(draw_state(random, instruction, word, mode))
        except Exception as error:
            error.add_note(f"CHRONOVISOR_SEED={seed}")
            raise
    return len(instructions) * STATES


def _is_exact(instruction: Instruction) -> bool:
    """Whether nothing of what it does is left unknown (tests/engine/test_symbolic_ieee.py has what is)."""
    return all(one.op != "ieee" for one in instruction.program((0,) * len(instruction.statics)).statements())


@cache
def exact() -> tuple[Instruction, ...]:
    return tuple(one for one in ALL if "SPR" in one.statics or _is_exact(one))


PARTS = 8


def test_most_instructions_are_compared() -> None:
    assert len(exact()) > 600


@pytest.mark.parametrize("part", range(PARTS))
def test_states_of_every_instruction(part: int) -> None:
    compare(new_seed(), exact()[part::PARTS])
