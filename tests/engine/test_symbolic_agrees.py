"""The symbolic evaluator computes, with numbers put in for its unknowns, what the concrete one does."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from random import Random

import pytest
import z3

from chronovisor.engine import python_source
from chronovisor.engine.concrete import operation
from chronovisor.engine.python_source import Hypercall
from chronovisor.engine.state import GuestInterrupt, Resync, ThreadState
from chronovisor.engine.symbolic import evaluator, terms
from chronovisor.engine.symbolic.state import STORED, SymbolicState
from chronovisor.isa.bits import MSR
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.interrupts import HYPERCALL
from chronovisor.isa.registers import REGISTERS
from chronovisor.isa.values import OPERATIONS
from chronovisor.memory.guest_memory import GuestMemory

from .drawn import ALL, LIVE, MEMORY_SIZE, Drawn, draw

SOAK = int(os.environ.get("CHRONOVISOR_SOAK", "1000000")) // 200
"""A case here takes as long as a thousand of the concrete evaluator's."""


def test_every_operation_has_a_reading() -> None:
    assert {*terms.EXPRESSIONS, "operand", *evaluator.STATEMENTS} == OPERATIONS.keys()
    assert {*python_source.EXPRESSIONS, *python_source.STATEMENTS} == OPERATIONS.keys()


class _Live:
    """Live registers that stand still, and a record of what was written."""

    def __init__(self, values: dict[str, int]) -> None:
        self.values = values
        self.written: list[tuple[str, int]] = []

    def read(self, name: str) -> int:
        return self.values[name]

    def write(self, name: str, value: int) -> None:
        self.written.append((name, value))

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


def _byte(address: int) -> int:
    return (address * 0x9E3779B1 >> 16) & 0xFF


_INITIAL = bytes(_byte(address) for address in range(MEMORY_SIZE))
_PLACE = z3.BitVec("place", 64)
_INITIAL_TERM = z3.Lambda([_PLACE], z3.Extract(7, 0, z3.LShR(_PLACE * 0x9E3779B1, 16)))


class Disagreement(AssertionError):
    pass


class Comparison:
    """One case, asked of both evaluators."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.live = _Live(drawn.live)
        self.memory = GuestMemory(MEMORY_SIZE)
        self.memory.write(0, _INITIAL)
        self.state = ThreadState(self.memory, self.live, _NoCode())
        self.state.gpr[:] = [drawn.registers[f"r{n}"] for n in range(32)]
        for name in STORED:
            self.state.set(name, drawn.registers[name])
        reservation = drawn.reservation
        if reservation is not None and reservation[0] + 16 <= MEMORY_SIZE and reservation[2] & 1:
            # Half of the reservations still hold what was read.
            address, size, _ = reservation
            value = self.memory.load(address, size, drawn.mode[1])
            self.drawn = replace(drawn, reservation=(address, size, value))
        self.state.reservation = self.drawn.reservation

    def check(self) -> None:
        ended = self._run_concrete()
        self._run_symbolic()
        for name in STORED:
            self._equal(name, self.symbolic[name], self.state.get(name))
        if "random" not in {one.op for one in self._program()}:
            for n in range(32):
                self._equal(f"r{n}", self.symbolic.gpr[n], self.state.gpr[n])
        self._check_memory()
        self._check_reservation()
        raised = [
            (one.name, self._number(one.cause)) for one in self.outcome.raised if self._holds(one.condition)
        ]
        if self._holds(self.outcome.resync):
            raised.append(("RESYNC", 0))
        assert raised == ended, self._said(f"ends {raised}, concrete {ended}")
        assert self._holds(self.outcome.completed) == (ended in ([], [("RESYNC", 0)]))
        written = [(name, self._number(value)) for name, value, when in self.written if self._holds(when)]
        assert written == self.live.written, self._said("live registers written")

    def _program(self) -> list[object]:
        drawn = self.drawn
        statics = drawn.instruction.decode_statics(drawn.word)
        return list(drawn.instruction.program(statics, *drawn.mode).statements())

    def _run_concrete(self) -> list[tuple[str, int]]:
        handler, operands = operation(self.drawn.word, *self.drawn.mode)
        try:
            handler(self.state, *operands)
        except GuestInterrupt as raised:
            return [(raised.name, raised.cause)]
        except Hypercall:
            return [(HYPERCALL, 0)]
        except Resync:
            return [("RESYNC", 0)]
        return []

    def _run_symbolic(self) -> None:
        state = SymbolicState.unknown(memory_size=MEMORY_SIZE)
        fixed = int(MSR.SF | MSR.LE)
        msr = z3.BitVec("MSR", 64)
        state["MSR"] = (msr & ~fixed) | (self.drawn.registers["MSR"] & fixed)
        live = _SymbolicLive()
        self.outcome = evaluator.execute(self.drawn.instruction, self.drawn.word, state, live)
        self.symbolic, self.written = state, live.written
        registers = self.drawn.registers
        values: list[tuple[z3.ExprRef, z3.ExprRef]] = [
            (z3.BitVec(name, width), z3.BitVecVal(registers[name], width))
            for name, width in (
                *((name, REGISTERS[name].width) for name in STORED),
                *((f"r{n}", 64) for n in range(32)),
            )
        ]
        values += [
            (z3.BitVec(f"live_{n}", REGISTERS[n].width), z3.BitVecVal(self.drawn.live[n], REGISTERS[n].width))
            for n in LIVE
        ]
        address, size, value = self.drawn.reservation or (0, 0, 0)
        values += [
            (z3.Bool("reserved"), z3.BoolVal(self.drawn.reservation is not None)),
            (z3.BitVec("reserved_address", 64), z3.BitVecVal(address, 64)),
            (z3.BitVec("reserved_size", 8), z3.BitVecVal(size, 8)),
            (z3.BitVec("reserved_value", 128), z3.BitVecVal(value, 128)),
            (z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(8)), _INITIAL_TERM),
        ]
        self._values = values

    def _put_in(self, term: z3.ExprRef) -> z3.ExprRef:
        return z3.simplify(z3.substitute(term, *self._values))

    def _number(self, term: z3.BitVecRef) -> int:
        simple = self._put_in(term)
        assert z3.is_bv_value(simple), self._said(f"{simple} is no number")
        return simple.as_long()

    def _holds(self, condition: z3.BoolRef) -> bool:
        simple = self._put_in(condition)
        assert z3.is_true(simple) or z3.is_false(simple), self._said(f"{simple} is no truth")
        return z3.is_true(simple)

    def _equal(self, name: str, term: z3.BitVecRef, expected: int) -> None:
        unchanged = z3.is_const(term) and term.decl().name() == name
        found = self.drawn.registers[name] if unchanged else self._number(term)
        if found != expected:
            raise Disagreement(self._said(f"{name}: symbolic {found:#x}, concrete {expected:#x}"))

    def _check_memory(self) -> None:
        stored: dict[int, int] = {}
        term = self._put_in(self.symbolic.memory)
        chain = []
        while z3.is_app_of(term, z3.Z3_OP_STORE):
            chain.append((term.arg(1).as_long(), term.arg(2).as_long()))
            term = term.arg(0)
        for address, byte in reversed(chain):
            stored[address] = byte
        after = self.memory.read(0, MEMORY_SIZE)
        expected = bytearray(_INITIAL)
        for address, byte in stored.items():
            expected[address] = byte
        assert bytes(expected) == after, self._said("memory")

    def _check_reservation(self) -> None:
        expected = self.state.reservation
        found = self.symbolic.reservation
        if not self._holds(found.held):
            assert expected is None, self._said("the reservation is gone")
            return
        parts = tuple(self._number(part) for part in (found.address, found.size, found.value))
        assert parts == expected, self._said(f"reservation {parts}, concrete {expected}")

    def _said(self, what: str) -> str:
        drawn = self.drawn
        return f"{drawn.instruction.mnemonic} {drawn.word:#010x} in mode {drawn.mode}: {what}"


def _seed() -> int:
    """A new one each time, unless CHRONOVISOR_SEED repeats one."""
    return int(os.environ.get("CHRONOVISOR_SEED", secrets.randbits(32)))


def _check(random: Random, instruction: Instruction) -> None:
    Comparison(draw(random, instruction)).check()


def test_every_instruction_once() -> None:
    seed = _seed()
    random = Random(seed)
    for instruction in ALL:
        try:
            _check(random, instruction)
        except Exception as error:
            error.add_note(f"CHRONOVISOR_SEED={seed}")
            raise


@pytest.mark.soak
def test_soak() -> None:
    seed = _seed()
    random = Random(seed)
    for _ in range(SOAK):
        try:
            _check(random, random.choice(ALL))
        except Exception as error:
            error.add_note(f"CHRONOVISOR_SEED={seed}")
            raise
