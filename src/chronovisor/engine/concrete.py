"""The concrete evaluator: meanings over Python ints. The reference: slow, plain, obviously right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import cache

from chronovisor.engine.endings import Declined, GuestInterrupt, Resync, Undone
from chronovisor.engine.hypercalls import NUMBER_REGISTER, HypercallProgram
from chronovisor.engine.live_registers import LiveRegisters
from chronovisor.engine.python_source import Hypercall, compile_program
from chronovisor.engine.state import CACHE_BLOCK, Thread, ThreadState
from chronovisor.engine.statistics import Instructions
from chronovisor.isa.bits import DSISR, MSR
from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.interrupts import (
    BRANCHES,
    INTERRUPT_NAMES,
    INTERRUPT_NUMBERS,
    INTERRUPTS,
    TRACE_CAUSE,
    TRACE_LOAD,
    TRACE_STORE,
    UNTRACED,
    entry,
)
from chronovisor.isa.notation import Machine
from chronovisor.memory.guest_memory import AddressError, GuestMemory
from chronovisor.memory.watched import WatchedError, WatchedMemory, Watchpoint

#: What executes an instruction or an interrupt's entry: (state, *operands).
Execute = Callable[..., None]
Operation = tuple[Execute, tuple[int, ...]]

_M64 = (1 << 64) - 1

#: Instructions that stay decoded in a mode, at some hundred bytes each: a guest's code may never end.
MOST_DECODED = 1 << 18


class Reason(Enum):
    """Why the engine gave a thread back."""

    BUDGET = "the budget of instructions is used up"
    RESYNC = "machine state changed: look at interrupts and deadlines again"
    HYPERCALL = "the guest called the hypervisor; CIA is behind the call"
    BREAKPOINT = "CIA is at a breakpoint"
    WATCHPOINT = "the instruction at CIA, which is not done, accesses a watched place"
    CRASH_LOOP = "an interrupt's handler raises that interrupt at its first instruction, for ever"


@dataclass(frozen=True, slots=True)
class Crash:
    """How a crash loop began: the interrupt before it, the address where that came, its DAR and vector."""

    interrupt: str
    address: int
    dar: int
    vector: int


@dataclass(frozen=True, slots=True)
class Stop:
    """How a run ended."""

    reason: Reason
    crash: Crash | None = None
    watchpoint: Watchpoint | None = None


_BUDGET = Stop(Reason.BUDGET)
_RESYNC = Stop(Reason.RESYNC)
_HYPERCALL = Stop(Reason.HYPERCALL)
_BREAKPOINT = Stop(Reason.BREAKPOINT)


@cache
def _executes(instruction: Instruction, statics: tuple[int, ...], sixty_four: bool, little: bool) -> Execute:
    return compile_program(instruction.program(statics, sixty_four, little), little)


@cache
def _illegal() -> Execute:
    m = Machine()
    m.illegal()
    return compile_program(m.trace.program("illegal", ()), False)


@cache
def _interrupt_entry(name: str) -> Execute:
    return compile_program(entry(name), False)


@cache
def _compiled(answer: HypercallProgram) -> Execute:
    """A program that answers a hypercall, as Python: made when a guest first makes the call."""
    return compile_program(answer.program, False)


def operation(word: int, sixty_four: bool, little: bool) -> Operation:
    """What executes an instruction word in a machine mode: a function and the word's operands."""
    found = decode(word)
    if found is None:
        return _illegal(), ()
    execute = _executes(found, found.meaning_statics(word), sixty_four, little)
    return execute, tuple(number & _M64 for number in found.decode_operands(word))


class ConcreteEngine:
    """Runs the threads of one guest; decoded instructions are shared among them.

    Instructions stay decoded until `icbi` names their block: the architecture asks this of a guest that
    changes code.
    """

    #: Whether guests run as machine code.
    is_native = False
    #: Instructions that take about a millisecond: how long a run may go on without its caller.
    budget = 512

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self._decoded: dict[tuple[bool, bool], dict[int, Operation]] = {
            (sixty_four, little): {} for sixty_four in (False, True) for little in (False, True)
        }
        #: The blocks of which something may be decoded, by their numbers: guests have many more forgotten.
        self._decoded_blocks: set[int] = set()
        self._made: list[Thread] = []
        self.breakpoints: frozenset[int] = frozenset()
        """The real addresses of instructions before which a run stops."""
        self._watched: WatchedMemory | None = None
        self._answers: dict[int, HypercallProgram] = {}
        self.word_tables: dict[int, memoryview] = {}
        """The tables of words that hypercalls set, by their numbers."""
        self._exchanging = threading.Lock()
        memory.on_clear.append(self.forget_all)

    def thread(self, live: LiveRegisters) -> Thread:
        """A new thread in its reset state."""
        return self._known(ThreadState(self.memory, live, self))

    def answer_hypercalls(self, programs: Sequence[HypercallProgram]) -> None:
        """Have threads that are made from now on answer hypercalls by programs, as their ``answers`` say."""
        self._answers = {one.number: one for one in programs}

    def share_words(self, number: int, words: memoryview) -> None:
        """Have programs set these words of 64 bits as the table of that number. No thread may run."""
        self.word_tables[number] = words

    def exchange_word(self, table: int, number: int, expected: int, new: int) -> bool:
        """Set a word of a table if it still is as expected; whether it was, and there is such a word."""
        words = self.word_tables.get(table)
        if words is None or number >= len(words):
            return False
        with self._exchanging:
            if words[number] != expected:
                return False
            words[number] = new
            return True

    def _known(self, thread: Thread) -> Thread:
        """The thread, to be told when translations are to be forgotten, and for its count of instructions."""
        self._made.append(thread)
        return thread

    def forget_translations(self) -> None:
        """Have every thread of the guest look its translations up anew."""
        for thread in self._made:
            thread.translations.forget()

    @property
    def instructions(self) -> Instructions:
        """How many instructions the threads have executed; none may be running."""
        return Instructions(sum(thread.executed for thread in self._made), 0, 0)

    def forget(self, address: int) -> None:
        """Decode the cache block that holds the real address anew."""
        if address // CACHE_BLOCK not in self._decoded_blocks:
            return
        block = address & ~(CACHE_BLOCK - 1)
        for decoded in self._decoded.values():
            for place in range(block, block + CACHE_BLOCK, 4):
                decoded.pop(place, None)

    def forget_code(self, address: int, size: int) -> None:
        """Decode anew what was decoded of these real addresses: memory was changed from outside."""
        for block in range(address & -CACHE_BLOCK, address + size, CACHE_BLOCK):
            self.forget(block)

    def forget_all(self) -> None:
        """Decode everything anew: memory was changed from outside."""
        for decoded in self._decoded.values():
            decoded.clear()
        self._decoded_blocks.clear()

    def break_at(self, addresses: Collection[int]) -> None:
        """Have runs stop before the instructions at these real addresses, and at no others.

        No thread may be running.
        """
        self.breakpoints = frozenset(addresses)

    def enter_decrementer(self, state: Thread, wanted: bool) -> bool:
        """See `Engine`: this one never enters it by itself."""
        return False

    def run(self, state: Thread, budget: int) -> Stop:
        """Execute up to ``budget`` instructions; stops early for what only the caller can do."""
        if self._watched is not None:
            return self._run_watched(state, budget, self._watched)
        return self._run_to_breakpoint(state, budget) if self.breakpoints else self._run(state, budget)

    def step(self, state: Thread) -> Stop:
        """Execute one instruction, even at a breakpoint."""
        return self._run(state, 1)

    def watch(self, watchpoints: Collection[Watchpoint]) -> None:
        """Have runs stop before instructions that access these places, and no others. No thread may run.

        A step does not look at them.
        """
        self._watched = WatchedMemory(self.memory, watchpoints) if watchpoints else None

    def _run_watched(self, state: Thread, budget: int, watched: WatchedMemory) -> Stop:
        plain, state.memory = state.memory, watched
        try:
            return self._run_to_breakpoint(state, budget)
        except WatchedError as error:
            return Stop(Reason.WATCHPOINT, watchpoint=error.watchpoint)
        finally:
            state.memory = plain

    def _run_to_breakpoint(self, state: Thread, budget: int) -> Stop:
        end = state.executed + budget
        while state.executed < end:
            if self._at_breakpoint(state):
                return _BREAKPOINT
            stop = self._run(state, 1)
            if stop is not _BUDGET:
                return stop
        return _BUDGET

    def _at_breakpoint(self, state: Thread) -> bool:
        try:
            return state.fetch_address() in self.breakpoints
        except GuestInterrupt:
            return False

    def _run(self, state: Thread, budget: int) -> Stop:
        end = state.executed + budget
        while True:
            try:
                if state.MSR & (MSR.SE | MSR.BE):
                    self._trace_steps(state, end)
                else:
                    self._steps(state, end)
                return _BUDGET
            except GuestInterrupt as raised:
                state.executed += 1
                crash = self._enter(state, raised)
                if crash is not None:
                    return Stop(Reason.CRASH_LOOP, crash)
                return _RESYNC
            except Resync:
                state.executed += 1
                state.CIA = state.NIA
                return _RESYNC
            except Undone:
                return _RESYNC
            except Hypercall:
                state.executed += 1
                state.CIA = state.NIA
                stop = self._hypercall(state)
                if stop is not None:
                    return stop

    def _hypercall(self, state: Thread) -> Stop | None:
        """Answer a hypercall: None, or why the run ends now."""
        answer = self._answers.get(state.gpr[NUMBER_REGISTER])
        if answer is None or not state.answers >> answer.place & 1 or state.MSR & MSR.PR:
            return _HYPERCALL
        stop = None
        try:
            _compiled(answer)(state)
        except Declined:
            return _HYPERCALL
        except Resync:
            stop = _RESYNC
        state.hypercalls_answered += 1
        return stop

    def _steps(self, state: Thread, end: int) -> None:
        decoded = self._decoded[state.mode]
        translated = state.MSR & MSR.IR
        while state.executed < end:
            cia = state.CIA
            found = decoded.get(state.fetch_address() if translated else cia)
            if found is None:
                found = self._fetch(state)
                cia = state.CIA
            state.NIA = cia + 4
            found[0](state, *found[1])
            state.CIA = state.NIA
            state.executed += 1

    def _trace_steps(self, state: Thread, end: int) -> None:
        """As `_steps`, with a trace interrupt behind each instruction (SE) or branch (BE)."""
        while state.executed < end:
            found = self._fetch(state)
            msr, cia = state.MSR, state.CIA
            cause = self._trace_cause(self.memory.load(state.fetch_address(), 4, bool(msr & MSR.LE)), msr)
            state.NIA = cia + 4
            try:
                found[0](state, *found[1])
            except Resync:
                if cause is None:
                    raise
            if cause is not None:
                state.SIAR = cia
                raise GuestInterrupt("TRACE", cause)
            state.CIA = state.NIA
            state.executed += 1

    @staticmethod
    def _trace_cause(word: int, msr: int) -> int | None:
        """SRR1's bits for the trace interrupt behind an instruction; None if it causes no such interrupt."""
        found = decode(word)
        if found is None or found.mnemonic in UNTRACED:
            return None
        if not msr & MSR.SE and found.mnemonic not in BRANCHES:
            return None
        done = {statement.op for statement in found.program(found.decode_statics(word)).statements()}
        if done & {"store", "store_conditional", "zero_block"}:
            return TRACE_CAUSE | TRACE_STORE
        return TRACE_CAUSE | TRACE_LOAD if done & {"load", "load_reserved", "probe"} else TRACE_CAUSE

    def _fetch(self, state: Thread) -> Operation:
        """What is at CIA, which is first cut to the width that addresses have."""
        sixty_four, little = state.mode
        cia = state.CIA = state.CIA & (_M64 if sixty_four else 0xFFFFFFFF)
        state.NIA = cia
        address = state.fetch_address()
        with self._decodes(address):
            try:
                word = self.memory.load(address, 4, little)
            except AddressError:
                raise GuestInterrupt("INSTRUCTION_STORAGE", int(DSISR.PROTECTION)) from None
            found = operation(word, sixty_four, little)
            if state.MSR & MSR.IR or cia == address:
                # `forget` can find only these by their real address.
                decoded = self._decoded[state.mode]
                if len(decoded) >= MOST_DECODED:
                    decoded.clear()
                self._decoded_blocks.add(address // CACHE_BLOCK)
                decoded[address] = found
        return found

    def _decodes(self, address: int) -> AbstractContextManager[None]:
        """While the instruction at a real address is read and decoded."""
        return nullcontext()

    def interrupt(self, state: Thread, name: str, cause: int = 0) -> None:
        """Enter an interrupt that came from outside, between two instructions."""
        state.NIA = state.CIA
        _interrupt_entry(name)(state, cause)
        state.CIA = state.NIA

    def _enter(self, state: Thread, raised: GuestInterrupt) -> Crash | None:
        came_from, before = state.CIA, state.MSR
        cause = raised.cause
        _interrupt_entry(raised.name)(state, cause)
        state.CIA = state.NIA
        endless = came_from == state.CIA and before == state.MSR and not INTERRUPTS[raised.name].after
        if endless and state.latest_interrupt:
            name = INTERRUPT_NAMES[state.latest_interrupt]
            return Crash(name, state.latest_address, state.latest_dar, state.latest_vector)
        if endless:
            return Crash(raised.name, came_from, state.DAR, state.CIA)
        if came_from != state.latest_vector or not state.latest_interrupt:
            # If a handler's first instruction fails, the interrupt that called the handler is the cause.
            state.latest_interrupt = INTERRUPT_NUMBERS[raised.name]
            state.latest_address, state.latest_dar = came_from, state.DAR
            state.latest_vector = state.CIA
        return None
