"""Programs over a symbolic state: each statement happens under its guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import z3

from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.engine.symbolic.state import Reservation, SymbolicLive, SymbolicState
from chronovisor.engine.symbolic.terms import EXPRESSIONS, bit, known, truth
from chronovisor.isa.bits import DSISR, MSR
from chronovisor.isa.instruction import Instruction
from chronovisor.isa.operations import EFFECTS
from chronovisor.isa.radix import Access, translation
from chronovisor.isa.values import Block, Program, Value, When
from chronovisor.memory.guest_memory import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Raised:
    """An interrupt that ended the instruction if ``condition`` holds; ``cause`` are SRR1's 64 bits."""

    condition: z3.BoolRef
    name: str
    cause: z3.BitVecRef


@dataclass(slots=True)
class Outcome:
    """What an instruction did besides changing the state: the interrupts that it raised, and its resync.

    At most one condition of ``raised`` holds. If one does, ``resync`` does not.
    """

    raised: list[Raised] = field(default_factory=list)
    resync: z3.BoolRef = field(default_factory=lambda: z3.BoolVal(False))

    @property
    def completed(self) -> z3.BoolRef:
        """Holds if the instruction was done to its end."""
        return z3.simplify(z3.Not(z3.Or(*(one.condition for one in self.raised))))


class Evaluation:
    """One program on its way over one state, which it changes."""

    def __init__(
        self,
        state: SymbolicState,
        live: SymbolicLive,
        operands: Mapping[str, int | z3.BitVecRef],
        sixty_four: bool,
        little: bool,
    ) -> None:
        self.state = state
        self.live = live
        self.operands = operands
        self.sixty_four = sixty_four
        self.little = little
        self.outcome = Outcome()
        self.real_address: z3.BitVecRef = z3.BitVecVal(0, 64)
        """What a translation has found."""
        self.going: z3.BoolRef = z3.BoolVal(True)
        self.guard: z3.BoolRef = z3.BoolVal(True)
        self._terms: dict[int, z3.BitVecRef] = {}
        self._as_they_are: set[int] = set()
        """The statements whose terms were not simplified."""

    def run(self, block: Block, guard: z3.BoolRef) -> None:
        """Execute statements under ``guard``, as long as nothing has ended the program."""
        for statement in block:
            if isinstance(statement, When):
                condition = truth(self._terms[id(statement.condition)])
                inside = z3.simplify(z3.And(guard, condition))
                if not z3.is_false(inside):
                    self.run(statement.body, inside)
                continue
            self.guard = z3.simplify(z3.And(guard, self.going))
            arguments = [self._terms[id(argument)] for argument in statement.args]
            if statement.op == "operand":
                number = self.operands[str(statement.detail)]
                self._terms[id(statement)] = (
                    z3.BitVecVal(number, statement.width) if isinstance(number, int) else number
                )
            elif statement.op in EXPRESSIONS:
                self._keep(statement, EXPRESSIONS[statement.op](statement, *arguments))
            elif statement.op in EFFECTS:
                STATEMENTS[statement.op](self, statement, *arguments)
            else:
                self._keep(statement, STATEMENTS[statement.op](self, statement, *arguments))

    def _keep(self, statement: Value, term: z3.BitVecRef) -> None:
        """Keep what a statement computes, simplified.

        What is wider than a general-purpose register, or put together from parts of that, stays as it is: z3
        would take vectors' masks apart, element by element, which makes eighty times as many terms of AES's
        substitution of bytes.
        """
        widths = [statement.width, *(argument.width for argument in statement.args)]
        is_of_parts = statement.op == "concat" and any(id(one) in self._as_they_are for one in statement.args)
        if max(widths) > 64 or is_of_parts:
            self._as_they_are.add(id(statement))
        else:
            term = z3.simplify(term)
        self._terms[id(statement)] = term

    # What statements are made of

    def put(self, name: str, value: z3.BitVecRef) -> None:
        """A stored register changes."""
        self.state[name] = z3.simplify(z3.If(self.guard, value, self.state[name]))

    def end(self, name: str, cause: z3.BitVecRef, when: z3.BoolRef) -> None:
        """End in an interrupt if ``when`` holds as well as the guard."""
        condition = z3.simplify(z3.And(self.guard, when))
        if z3.is_false(condition):
            return
        self.outcome.raised.append(Raised(condition, name, cause))
        self._stop(condition)

    def _stop(self, condition: z3.BoolRef) -> None:
        self.going = z3.simplify(z3.And(self.going, z3.Not(condition)))
        self.guard = z3.simplify(z3.And(self.guard, z3.Not(condition)))

    def resync(self) -> None:
        """End, done."""
        self.outcome.resync = z3.simplify(z3.Or(self.outcome.resync, self.guard))
        self._stop(self.guard)

    def real(self, ea: z3.BitVecRef) -> z3.BitVecRef:
        """The real address behind an effective address in real mode."""
        return z3.simplify(ea & (self.state.addresses.mask if self.sixty_four else 0xFFFFFFFF))

    def access(self, ea: z3.BitVecRef, size: int, store: bool) -> z3.BitVecRef:
        """The real address of an access, which ends in a data storage interrupt if it cannot be made."""
        translated = z3.simplify(self.state["MSR"] & int(MSR.DR) != 0)
        address = self.real(ea)
        if not self.state.radix:
            # Hashed page tables are not implemented.
            self._fault(ea, DSISR.NO_TRANSLATION, store, translated)
        elif not z3.is_false(translated):
            access = Access.STORE if store else Access.LOAD
            address = z3.simplify(z3.If(translated, self._translate(ea, access, translated), address))
        if self.state.memory_size is not None:
            end = self.state.memory_size
            # An access that begins in memory and leaves it faults at the page that is missing.
            there = z3.If(z3.ULT(address, end), end - address, z3.BitVecVal(0, 64))
            self._fault(ea + there, DSISR.PROTECTION, store, z3.UGT(address, end - size))
        return address

    def _translate(self, ea: z3.BitVecRef, access: Access, when: z3.BoolRef) -> z3.BitVecRef:
        """The real address by the guest's tables, if `when` holds; ends in the interrupts of the walk."""
        ea = ea if self.sixty_four else ea & 0xFFFFFFFF
        walk = Evaluation(self.state, self.live, {"ea": ea}, self.sixty_four, self.little)
        walk.run(translation(access).body, z3.simplify(z3.And(self.guard, when)))
        for raised in walk.outcome.raised:
            self.outcome.raised.append(raised)
            self._stop(raised.condition)
        return walk.real_address

    def _fault(self, ea: z3.BitVecRef, why: int, store: bool, when: z3.BoolRef) -> None:
        before = self.guard
        self.guard = z3.simplify(z3.And(before, when))
        if not z3.is_false(self.guard):
            self.put("DAR", ea if self.sixty_four else ea & 0xFFFFFFFF)
            self.put("DSISR", z3.BitVecVal(int(why | (DSISR.STORE if store else 0)), 32))
        self.guard = before
        self.end("DATA_STORAGE", z3.BitVecVal(0, 64), when)

    def remember(self, memory: z3.ArrayRef, when: z3.BoolRef) -> None:
        """Memory changes if ``when`` holds."""
        if not z3.is_false(when):
            self.state.memory = z3.simplify(z3.If(when, memory, self.state.memory))


def _read_file(e: Evaluation, v: Value, number: z3.BitVecRef) -> z3.BitVecRef:
    registers = e.state.files[str(v.detail)]
    index = known(number)
    if index is not None:
        return registers[index]
    term = registers[-1]
    for other, register in enumerate(registers[:-1]):
        term = z3.If(number == other, register, term)
    return term


def _write_file(e: Evaluation, v: Value, number: z3.BitVecRef, value: z3.BitVecRef) -> None:
    registers = e.state.files[str(v.detail)]
    index = known(number)
    for each in range(len(registers)) if index is None else (index,):
        here = e.guard if index is not None else z3.And(e.guard, number == each)
        term = value if z3.is_true(here) else z3.If(here, value, registers[each])
        registers[each] = term if term.size() > 64 else z3.simplify(term)


def _load(e: Evaluation, v: Value, ea: z3.BitVecRef) -> z3.BitVecRef:
    address = e.access(ea, v.width // 8, store=False)
    return e.state.bytes_at(address, v.width // 8, e.little)


def _store(e: Evaluation, v: Value, ea: z3.BitVecRef, value: z3.BitVecRef) -> None:
    address = e.access(ea, value.size() // 8, store=True)
    e.remember(e.state.put_bytes(address, value, e.little), e.guard)


def _hold(e: Evaluation, new: Reservation) -> None:
    old, guard = e.state.reservation, e.guard
    e.state.reservation = Reservation(
        z3.simplify(z3.If(guard, new.held, old.held)),
        z3.simplify(z3.If(guard, new.address, old.address)),
        z3.simplify(z3.If(guard, new.size, old.size)),
        z3.simplify(z3.If(guard, new.value, old.value)),
    )


def _load_reserved(e: Evaluation, v: Value, ea: z3.BitVecRef) -> z3.BitVecRef:
    value = _load(e, v, ea)
    wide = z3.ZeroExt(128 - v.width, value) if v.width < 128 else value
    _hold(e, Reservation(z3.BoolVal(True), e.access(ea, 1, store=False), z3.BitVecVal(v.width // 8, 8), wide))
    return value


def _store_conditional(e: Evaluation, v: Value, ea: z3.BitVecRef, value: z3.BitVecRef) -> z3.BitVecRef:
    size = value.size() // 8
    # An aligned access lies within memory if its first byte does. One that faults keeps the reservation.
    address = e.access(ea, 1, store=True)
    held = e.state.reservation
    _hold(e, Reservation(z3.BoolVal(False), held.address, held.size, held.value))
    there = e.state.bytes_at(address, size, e.little)
    unchanged = z3.ZeroExt(128 - value.size(), there) if value.size() < 128 else there
    done = z3.simplify(z3.And(held.held, held.address == address, held.size == size, held.value == unchanged))
    e.remember(e.state.put_bytes(address, value, e.little), z3.simplify(z3.And(e.guard, done)))
    return bit(done)


def _zero_block(e: Evaluation, v: Value, ea: z3.BitVecRef) -> None:
    address = e.access(ea & ~(CACHE_BLOCK - 1), 1, store=True)
    e.remember(e.state.put_bytes(address, z3.BitVecVal(0, CACHE_BLOCK * 8), False), e.guard)


def _probe(e: Evaluation, v: Value, ea: z3.BitVecRef) -> None:
    e.access(ea, 1, store=v.detail == "store")


def _load_real(e: Evaluation, v: Value, address: z3.BitVecRef) -> z3.BitVecRef:
    there = e.state.bytes_at(address, 8, False)
    if e.state.memory_size is None:
        return there
    return z3.If(z3.ULE(address, e.state.memory_size - 8), there, z3.BitVecVal(0, 64))


def _update_real(
    e: Evaluation, v: Value, address: z3.BitVecRef, old: z3.BitVecRef, new: z3.BitVecRef
) -> None:
    # One thread alone is looked at: what was read is still there.
    e.remember(e.state.put_bytes(address, new, False), e.guard)


def _store_real(e: Evaluation, v: Value, address: z3.BitVecRef, value: z3.BitVecRef) -> None:
    there = z3.BoolVal(True)
    if e.state.memory_size is not None:
        there = z3.ULE(address, e.state.memory_size - 8)
    e.remember(e.state.put_bytes(address, value, False), z3.simplify(z3.And(e.guard, there)))


def _translated(e: Evaluation, v: Value, real: z3.BitVecRef, size: z3.BitVecRef, loads: z3.BitVecRef) -> None:
    e.real_address = real


def _random(e: Evaluation, v: Value) -> z3.BitVecRef:
    return z3.FreshConst(z3.BitVecSort(64), "random")


def _shared(e: Evaluation, v: Value) -> z3.BitVecRef:
    # The hypervisor changes these words at any time: whatever is read may be there.
    return z3.FreshConst(z3.BitVecSort(64), "shared")


def _init_page(e: Evaluation, v: Value, page: z3.BitVecRef, source: z3.BitVecRef) -> z3.BitVecRef:
    there = z3.BoolVal(True)
    if e.state.memory_size is not None:
        last = e.state.memory_size - PAGE_SIZE
        there = z3.simplify(z3.And(z3.ULE(page, last), z3.ULE(source, last)))
    zeros = z3.BitVecVal(0, 8 * PAGE_SIZE)
    content = zeros if v.detail == "zero" else e.state.bytes_at(source, PAGE_SIZE, False)
    e.remember(e.state.put_bytes(page, content, False), z3.simplify(z3.And(e.guard, there)))
    return bit(there)


#: Operations on the state: (evaluation, value, operand terms…) -> term, or nothing for an effect.
STATEMENTS: dict[str, Callable[..., z3.BitVecRef]] = {
    "read_file": _read_file,
    "write_file": _write_file,
    "get": lambda e, v: e.state[v.detail],
    "set": lambda e, v, a: e.put(v.detail, a),
    "read_live": lambda e, v: e.live.read(v.detail, e.state),
    "write_live": lambda e, v, a: e.live.write(v.detail, a, e.guard, e.state),
    "load": _load,
    "store": _store,
    "load_reserved": _load_reserved,
    "store_conditional": _store_conditional,
    # Code is what the runner was given, whatever is stored there.
    "invalidate_code": lambda e, v, a: None,
    "zero_block": _zero_block,
    "probe": _probe,
    # One thread alone is looked at: its accesses are in order.
    "barrier": lambda e, v: None,
    "random": _random,
    "load_real": _load_real,
    "update_real": _update_real,
    "store_real": _store_real,
    "translated": _translated,
    # Nothing that was translated is kept.
    "new_context": lambda e, v: None,
    "forget_translations": lambda e, v, a, b, c: None,
    "await_invalidations": lambda e, v: None,
    "read_shared": _shared,
    "exchange_shared": lambda e, v, a, b: z3.FreshConst(z3.BitVecSort(1), "exchanged"),
    "init_page": _init_page,
    # The tables are no part of the state, and who else sets them is unknown.
    "set_words": lambda e, v, a, b, c, d: z3.FreshConst(z3.BitVecSort(1), "set"),
    "read_word": lambda e, v, a, b: z3.FreshConst(z3.BitVecSort(64), "word"),
    "exchange_word": lambda e, v, a, b, c, d: z3.FreshConst(z3.BitVecSort(1), "exchanged"),
    # What a file has is unknown, and so is whether it can be had at once.
    "host_io": lambda e, v, a, b, c, d: z3.FreshConst(z3.BitVecSort(64), "moved"),
    "nap": lambda e, v, a, b: z3.FreshConst(z3.BitVecSort(1), "readable"),
    "alarm": lambda e, v, a, b: z3.FreshConst(z3.BitVecSort(1), "set"),
    "watch": lambda e, v, a, b, c: z3.FreshConst(z3.BitVecSort(1), "watched"),
    "decline": lambda e, v: e.end("DECLINED", z3.BitVecVal(0, 64), z3.BoolVal(True)),
    "interrupt": lambda e, v, a: e.end(v.detail, a, z3.BoolVal(True)),
    "resync": lambda e, v: e.resync(),
}


def mode(state: SymbolicState) -> tuple[bool, bool]:
    """(64-bit, little-endian) of a state; ValueError if its MSR does not say."""
    msr = z3.simplify(state["MSR"])
    bits = [known(z3.Extract(place, place, msr)) for place in (63, 0)]
    if None in bits:
        raise ValueError("MSR must say which mode the thread is in: give its SF and LE")
    return bool(bits[0]), bool(bits[1])


def apply(
    program: Program,
    state: SymbolicState,
    live: SymbolicLive,
    operands: Mapping[str, int],
    mode: tuple[bool, bool],
) -> Outcome:
    """Change ``state`` as the program does; ``operands`` are its fields' numbers."""
    evaluation = Evaluation(state, live, operands, *mode)
    evaluation.run(program.body, z3.BoolVal(True))
    return evaluation.outcome


def execute(instruction: Instruction, word: int, state: SymbolicState, live: SymbolicLive) -> Outcome:
    """Execute a word at the state's CIA. NIA is the next address unless an interrupt was raised."""
    sixty_four, little = mode(state)
    state["NIA"] = z3.simplify(state["CIA"] + 4)
    program = instruction.program(instruction.decode_statics(word), sixty_four, little)
    operands = dict(zip(instruction.operands, instruction.decode_operands(word), strict=True))
    state.executed += 1
    return apply(program, state, live, operands, (sixty_four, little))
