"""Programs as LLVM functions: one row an operation.

A handler is ``tailcc i64 (state, record, memory, budget)``. It does its instruction and ends in a tail
call of the next instruction's handler, so that there is no dispatch loop and the four stay in machine
registers. Where it cannot go on, it stores the budget and CIA and returns a :class:`Left`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from chronovisor.engine.native.layout import (
    DERIVED_COUNT,
    OFFSETS,
    PAGE_SHIFT,
    RECORD_ADDRESS,
    RECORD_DERIVED,
    RECORD_HANDLER,
    RECORD_IMMEDIATE,
    RECORD_SIZE,
    RECORD_SLOTS,
    SLOT_COUNT,
    ZERO_REGISTER,
    Left,
)
from chronovisor.engine.state import CACHE_BLOCK
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.interrupts import HYPERCALL
from chronovisor.isa.values import PURE, Block, Program, Value, When

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
HANDLER = ir.FunctionType(I64, [POINTER, POINTER, POINTER, I64])
HANDLER_POINTER = ir.PointerType(HANDLER)


@dataclass(frozen=True)
class Encoding:
    """Where a program's operands lie in an instruction record.

    ``slots`` are small numbers (one byte each), ``immediate`` a 64-bit one, ``derived`` pure values of
    operands alone, which are computed once, when the instruction is decoded.
    """

    slots: tuple[str, ...]
    immediate: str | None
    derived: tuple[Value, ...]
    base: str | None


def encoding(program: Program) -> Encoding:
    """Lay out a program's operands."""
    slots = [n for n in program.operands if FIELDS[n].kind is not Kind.SIGNED and FIELDS[n].width <= 6]
    immediates = [n for n in program.operands if n not in slots]
    bases = {
        str(s.args[0].detail)
        for s in program.statements()
        if s.op == "gpr_or_zero" and s.args[0].op == "operand"
    }
    if len(immediates) > 1 or len(bases) > 1 or len(slots) + len(bases) > SLOT_COUNT:
        raise ValueError(f"{program.name}: its operands do not fit an instruction record")
    return Encoding(
        tuple(slots),
        immediates[0] if immediates else None,
        _derived(program),
        next(iter(bases), None),
    )


def _derived(program: Program) -> tuple[Value, ...]:
    """The largest pure values that depend on operands alone and are more than an operand."""
    static: dict[int, bool] = {}
    candidates: list[Value] = []
    used: list[Value] = []

    def walk(block: Block) -> None:
        for statement in block:
            if isinstance(statement, When):
                used.append(statement.condition)
                walk(statement.body)
                continue
            static[id(statement)] = statement.op in PURE and all(static[id(a)] for a in statement.args)
            if static[id(statement)]:
                if statement.op not in ("const", "operand") and _has_operand(statement):
                    candidates.append(statement)
            else:
                used.extend(statement.args)

    walk(program.body)
    needed = {id(v) for v in used}
    largest = [c for c in candidates if id(c) in needed and c.width <= 64]
    return tuple(largest[:DERIVED_COUNT])


def _has_operand(value: Value) -> bool:
    return value.op == "operand" or any(_has_operand(a) for a in value.args)


class Lowering:
    """One program on its way into one LLVM function."""

    def __init__(self, clock: ir.Function, name: str, program: Program, little: bool) -> None:
        self.clock = clock
        self.little = little
        module = clock.module
        self.encoding = encoding(program)
        self.function = ir.Function(module, HANDLER, name)
        self.function.calling_convention = "tailcc"
        self.function.attributes.add("nounwind")
        self.state, self.record, self.memory, self.budget = self.function.args
        for pointer in (self.state, self.record, self.memory):
            pointer.add_attribute("noalias")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.values: dict[int, ir.Value] = {}
        self.jumps = any(s.op == "set" and s.detail == "NIA" for s in program.statements())
        if self.jumps:
            self.nia = self.b.alloca(I64)
            self.jumped = self.b.alloca(I1)
            self.b.store(ir.Constant(I1, 0), self.jumped)
        self.attention = self.b.alloca(I1)
        self.b.store(ir.Constant(I1, 0), self.attention)
        self.ended = False
        self._block(program.body)
        if not self.ended:
            self._finish()

    # State and record

    def at(self, base: ir.Value, offset: int | ir.Value) -> ir.Value:
        """The address ``offset`` bytes behind ``base``."""
        index = ir.Constant(I64, offset) if isinstance(offset, int) else offset
        return self.b.gep(base, [index], inbounds=True, source_etype=I8)

    def field(self, name: str) -> ir.Value:
        """The address of a field of the state."""
        return self.at(self.state, OFFSETS[name])

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state."""
        return self.b.load(self.field(name), typ=ir.IntType(width))

    def write(self, name: str, value: ir.Value) -> None:
        """Set a field of the state, zero-extended to its 64 bits."""
        wide = value if value.type == I64 else self.b.zext(value, I64)
        self.b.store(wide, self.field(name))

    def address(self) -> ir.Value:
        """The instruction's own address."""
        return self.b.load(self.at(self.record, RECORD_ADDRESS), typ=I64)

    def slot(self, number: int) -> ir.Value:
        """A small operand, 64 bits."""
        return self.b.zext(self.b.load(self.at(self.record, RECORD_SLOTS + number), typ=I8), I64)

    def gpr(self, number: ir.Value) -> ir.Value:
        """The address of a general purpose register."""
        return self.at(self.state, self.b.shl(number, ir.Constant(I64, 3)))

    # Control

    def leave(self, why: Left, address: ir.Value) -> None:
        """Hand the thread back with CIA at ``address``."""
        self.write("CIA", address)
        self.b.store(self.budget, self.field("budget"))
        self.b.ret(ir.Constant(I64, int(why)))

    def leave_done(self, why: Left, address: ir.Value) -> None:
        """Hand the thread back behind this instruction."""
        before, self.budget = self.budget, self.b.sub(self.budget, ir.Constant(I64, 1))
        self.leave(why, address)
        self.budget = before

    def now(self) -> ir.Value:
        """The clock, in ticks."""
        return self.b.call(self.clock, [self.state, self.budget])

    def attend(self, condition: ir.Value) -> None:
        """Where ``condition`` holds, the `resync` that follows hands the thread back."""
        self.b.store(self.b.or_(condition, self.b.load(self.attention, typ=I1)), self.attention)

    def slow(self) -> None:
        """Leave this instruction, undone, to the concrete evaluator."""
        self.leave(Left.SLOW, self.address())

    def continue_at(self, record: ir.Value) -> None:
        """Go on with the instruction at ``record``, or leave where the budget is used up."""
        left = self.b.sub(self.budget, ir.Constant(I64, 1))
        spent = self.b.icmp_signed("<=", left, ir.Constant(I64, 0))
        out = self.function.append_basic_block("spent")
        on = self.function.append_basic_block("on")
        self.b.cbranch(spent, out, on).set_weights([1, 4000])
        self.b.position_at_end(out)
        self.leave_done(Left.BUDGET, self.b.load(self.at(record, RECORD_ADDRESS), typ=I64))
        self.b.position_at_end(on)
        handler = self.b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        arguments = [self.state, record, self.memory, left]
        result = self.b.call(handler, arguments, cconv="tailcc", tail="musttail")
        self.b.ret(result)

    def jump(self, target: ir.Value) -> None:
        """Go on at an address."""
        here = self.address()
        same = self.b.icmp_unsigned("<", self.b.xor(target, here), ir.Constant(I64, 1 << PAGE_SHIFT))
        near = self.function.append_basic_block("near")
        far = self.function.append_basic_block("far")
        self.b.cbranch(same, near, far)
        self.b.position_at_end(near)
        distance = self.b.mul(self.b.sub(target, here), ir.Constant(I64, RECORD_SIZE // 4))
        self.continue_at(self.at(self.record, distance))
        self.b.position_at_end(far)
        self.far_jump(target)

    def far_jump(self, target: ir.Value) -> None:
        """Go on at an address in any page; leave where it is not decoded."""
        page = self.b.lshr(self.b.and_(target, self.read("ea_mask")), ir.Constant(I64, PAGE_SHIFT))
        there = self.b.icmp_unsigned("<", page, self.read("page_count"))
        look = self.function.append_basic_block("look")
        found = self.function.append_basic_block("found")
        missing = self.function.append_basic_block("missing")
        self.b.cbranch(there, look, missing)
        self.b.position_at_end(look)
        table = self.b.inttoptr(self.read("page_table"), POINTER)
        records = self.b.load(self.at(table, self.b.shl(page, ir.Constant(I64, 3))), typ=I64)
        self.b.cbranch(self.b.icmp_unsigned("!=", records, ir.Constant(I64, 0)), found, missing)
        self.b.position_at_end(missing)
        self.leave_done(Left.FETCH, target)
        self.b.position_at_end(found)
        within = self.b.mul(
            self.b.lshr(self.b.and_(target, ir.Constant(I64, (1 << PAGE_SHIFT) - 1)), ir.Constant(I64, 2)),
            ir.Constant(I64, RECORD_SIZE),
        )
        self.continue_at(self.at(self.b.inttoptr(records, POINTER), within))

    def _finish(self) -> None:
        following = self.at(self.record, RECORD_SIZE)
        if not self.jumps:
            self.continue_at(following)
            return
        jumped = self.b.load(self.jumped, typ=I1)
        jumps = self.function.append_basic_block("jumps")
        falls = self.function.append_basic_block("falls")
        self.b.cbranch(jumped, jumps, falls)
        self.b.position_at_end(falls)
        self.continue_at(following)
        self.b.position_at_end(jumps)
        self.jump(self.b.load(self.nia, typ=I64))

    # Statements

    def _block(self, block: Block) -> None:
        for statement in block:
            if self.ended:
                return
            if isinstance(statement, When):
                self._when(statement)
            elif id(statement) not in self.values:
                self._statement(statement)

    def _when(self, guarded: When) -> None:
        then = self.function.append_basic_block("then")
        after = self.function.append_basic_block("after")
        self.b.cbranch(self.value(guarded.condition), then, after)
        self.b.position_at_end(then)
        self._block(guarded.body)
        if not self.ended:
            self.b.branch(after)
        self.ended = False
        self.b.position_at_end(after)

    def value(self, value: Value) -> ir.Value:
        """The LLVM value of a traced one."""
        return self.values[id(value)]

    def _statement(self, v: Value) -> None:
        for number, derived in enumerate(self.encoding.derived):
            if v is derived:
                place = self.at(self.record, RECORD_DERIVED + 8 * number)
                self.values[id(v)] = self.b.load(place, typ=ir.IntType(v.width))
                return
        result = LOWERINGS[v.op](self, v, *(self.value(a) for a in v.args))
        if result is not None:
            self.values[id(v)] = result

    def translated(self, ea: ir.Value) -> ir.Value:
        """The guest real address behind an effective one; the concrete evaluator's where there may be none.

        The limit leaves out the last bytes of memory, so that no access of up to 16 bytes crosses its end.
        """
        real = self.b.and_(ea, self.read("ea_mask"))
        inside = self.b.icmp_unsigned("<", real, self.read("data_limit"))
        good = self.function.append_basic_block("inside")
        bad = self.function.append_basic_block("outside")
        self.b.cbranch(inside, good, bad).set_weights([4000, 1])
        self.b.position_at_end(bad)
        self.slow()
        self.b.position_at_end(good)
        return real

    def mark_dirty(self, real: ir.Value, size: int) -> None:
        """Log the pages of a store."""
        pages = self.b.inttoptr(self.read("dirty_pages"), POINTER)
        first = self.b.lshr(real, ir.Constant(I64, PAGE_SHIFT))
        self.b.store(ir.Constant(I8, 1), self.at(pages, first))
        if size > 1:
            last = self.b.lshr(self.b.add(real, ir.Constant(I64, size - 1)), ir.Constant(I64, PAGE_SHIFT))
            self.b.store(ir.Constant(I8, 1), self.at(pages, last))

    def swapped(self, value: ir.Value) -> ir.Value:
        """A value between the guest's byte order and this machine's little-endian one."""
        if self.little or value.type.width == 8:
            return value
        return self.b.bswap(value)


Row = Callable[..., "ir.Value | None"]


def _binary(name: str) -> Row:
    return lambda low, v, a, b: getattr(low.b, name)(a, b)


def _shift(name: str) -> Row:
    def row(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
        within = low.b.icmp_unsigned("<", b, ir.Constant(b.type, v.width))
        safe = low.b.select(within, b, ir.Constant(b.type, v.width - 1 if name == "ashr" else 0))
        shifted = getattr(low.b, name)(a, safe)
        return shifted if name == "ashr" else low.b.select(within, shifted, ir.Constant(a.type, 0))

    return row


def _divide(name: str) -> Row:
    def row(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
        zero, one = ir.Constant(b.type, 0), ir.Constant(b.type, 1)
        by_zero = low.b.icmp_unsigned("==", b, zero)
        unsafe = by_zero
        overflow = None
        if name.startswith("s"):
            least = low.b.icmp_unsigned("==", a, ir.Constant(a.type, 1 << (v.width - 1)))
            overflow = low.b.and_(least, low.b.icmp_unsigned("==", b, ir.Constant(b.type, -1)))
            unsafe = low.b.or_(by_zero, overflow)
        result = getattr(low.b, name)(a, low.b.select(unsafe, one, b))
        if overflow is not None:
            result = low.b.select(overflow, a if name == "sdiv" else zero, result)
        return low.b.select(by_zero, zero, result)

    return row


def _compare(method: str, relation: str) -> Row:
    return lambda low, v, a, b: getattr(low.b, method)(relation, a, b)


def _operand(low: Lowering, v: Value) -> ir.Value:
    if v.detail == low.encoding.immediate:
        return low.b.load(low.at(low.record, RECORD_IMMEDIATE), typ=I64)
    return low.slot(low.encoding.slots.index(str(v.detail)))


def _extract(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    shifted = low.b.lshr(a, ir.Constant(a.type, v.detail)) if v.detail else a
    return low.b.trunc(shifted, ir.IntType(v.width))


def _concat(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    whole = ir.IntType(v.width)
    high = low.b.shl(low.b.zext(a, whole), ir.Constant(whole, b.type.width))
    return low.b.or_(high, low.b.zext(b, whole))


def _bit_count(name: str) -> Row:
    def row(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
        if name == "ctpop":
            return low.b.ctpop(a)
        return getattr(low.b, name)(a, ir.Constant(I1, 0))

    return row


def _gpr_or_zero(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    if v.args[0].op == "operand":
        number = low.slot(len(low.encoding.slots))
    else:
        number = low.b.select(
            low.b.icmp_unsigned("==", a, ir.Constant(I64, 0)), ir.Constant(I64, ZERO_REGISTER), a
        )
    return low.b.load(low.gpr(number), typ=I64)


def _set_gpr(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> None:
    low.b.store(b, low.gpr(a))


def _get(low: Lowering, v: Value) -> ir.Value:
    if v.detail == "CIA":
        return low.address()
    if v.detail == "NIA":
        return low.b.add(low.address(), ir.Constant(I64, 4))
    return low.read(str(v.detail), v.width)


def _set(low: Lowering, v: Value, a: ir.Value) -> None:
    if v.detail == "NIA":
        low.b.store(a, low.nia)
        low.b.store(ir.Constant(I1, 1), low.jumped)
    elif v.detail == "MSR":
        _set_msr(low, a)
    else:
        low.write(str(v.detail), a)


def _load(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    real = low.translated(a)
    loaded = low.b.load(low.at(low.memory, real), typ=ir.IntType(v.width))
    loaded.align = 1
    return low.swapped(loaded)


def _store(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> None:
    size = v.args[1].width // 8
    real = low.translated(a)
    low.b.store(low.swapped(b), low.at(low.memory, real)).align = 1
    low.mark_dirty(real, size)


def _load_reserved(low: Lowering, v: Value, a: ir.Value) -> ir.Value:
    size = v.width // 8
    real = low.translated(a)
    loaded = low.swapped(low.b.load(low.at(low.memory, real), typ=ir.IntType(v.width)))
    low.write("reserved_address", real)
    low.write("reserved_size", ir.Constant(I64, size))
    low.write("reserved_low", loaded)
    low.write("reserved_high", ir.Constant(I64, 0))
    return loaded


def _store_conditional(low: Lowering, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Compare with what was read and exchange, in one: another thread's store in between makes it fail."""
    size = v.args[1].width // 8
    real = low.translated(a)
    same_place = low.b.icmp_unsigned("==", low.read("reserved_address"), real)
    same_size = low.b.icmp_unsigned("==", low.read("reserved_size"), ir.Constant(I64, size))
    low.write("reserved_address", ir.Constant(I64, -1))
    before = low.b.block
    attempt = low.function.append_basic_block("attempt")
    stored = low.function.append_basic_block("stored")
    after = low.function.append_basic_block("conditional_done")
    low.b.cbranch(low.b.and_(same_place, same_size), attempt, after)
    low.b.position_at_end(attempt)
    expected = low.read("reserved_low", b.type.width)
    pair = low.b.cmpxchg(
        low.at(low.memory, real), low.swapped(expected), low.swapped(b), "seq_cst", "seq_cst"
    )
    done = low.b.extract_value(pair, 1)
    low.b.cbranch(done, stored, after)
    low.b.position_at_end(stored)
    low.mark_dirty(real, size)
    low.b.branch(after)
    low.b.position_at_end(after)
    result = low.b.phi(I1)
    result.add_incoming(ir.Constant(I1, 0), before)
    result.add_incoming(ir.Constant(I1, 0), attempt)
    result.add_incoming(ir.Constant(I1, 1), stored)
    return result


def _zero_block(low: Lowering, v: Value, a: ir.Value) -> None:
    block = low.translated(low.b.and_(a, ir.Constant(I64, -CACHE_BLOCK)))
    for offset in range(0, CACHE_BLOCK, 8):
        place = low.at(low.memory, low.b.add(block, ir.Constant(I64, offset)))
        low.b.store(ir.Constant(I64, 0), place)
    low.mark_dirty(block, CACHE_BLOCK)


def _probe(low: Lowering, v: Value, a: ir.Value) -> None:
    low.translated(a)


def _interrupt(low: Lowering, v: Value, a: ir.Value) -> None:
    if v.detail == HYPERCALL:
        low.leave_done(Left.HYPERCALL, low.b.add(low.address(), ir.Constant(I64, 4)))
    else:
        low.slow()
    low.ended = True


def _resync(low: Lowering, v: Value) -> None:
    following = low.b.add(low.address(), ir.Constant(I64, 4))
    if low.jumps:
        following = low.b.select(low.b.load(low.jumped, typ=I1), low.b.load(low.nia, typ=I64), following)
    look = low.function.append_basic_block("look_again")
    on = low.function.append_basic_block("nothing_new")
    low.b.cbranch(low.b.load(low.attention, typ=I1), look, on)
    low.b.position_at_end(look)
    low.leave_done(Left.RESYNC, following)
    low.b.position_at_end(on)


def _set_msr(low: Lowering, value: ir.Value) -> None:
    """Set MSR; what must be looked at again is all but a change of EE and RI that lets nothing in."""
    before = low.read("MSR")
    low.write("MSR", value)
    changed = low.b.xor(before, value)
    more = low.b.icmp_unsigned(
        "!=", low.b.and_(changed, ir.Constant(I64, ~int(MSR.EE | MSR.RI))), ir.Constant(I64, 0)
    )
    opened = low.b.and_(changed, low.b.and_(value, ir.Constant(I64, int(MSR.EE))))
    opens = low.b.icmp_unsigned("!=", opened, ir.Constant(I64, 0))
    due = low.b.icmp_signed("<", low.read("dec_deadline"), low.now())
    waiting = low.b.or_(due, low.b.icmp_unsigned("!=", low.read("pending"), ir.Constant(I64, 0)))
    low.attend(low.b.or_(more, low.b.and_(opens, waiting)))


def _read_live(low: Lowering, v: Value) -> ir.Value:
    if v.detail == "DEC":
        left = low.b.sub(low.read("dec_deadline"), low.now())
        large = low.b.icmp_unsigned(
            "!=", low.b.and_(low.read("LPCR"), ir.Constant(I64, int(LPCR.LD))), ir.Constant(I64, 0)
        )
        wide = low.b.ashr(low.b.shl(left, ir.Constant(I64, 8)), ir.Constant(I64, 8))
        return low.b.select(large, wide, low.b.and_(left, ir.Constant(I64, 0xFFFFFFFF)))
    timebase = low.b.add(low.now(), low.read("tb_adjust"))
    if v.detail == "TBU":
        return low.b.trunc(low.b.lshr(timebase, ir.Constant(I64, 32)), I32)
    return timebase


def _write_live(low: Lowering, v: Value, a: ir.Value) -> None:
    """Set DEC: its deadline. On the machine's own clock a later one is noticed in time without more ado."""
    large = low.b.icmp_unsigned(
        "!=", low.b.and_(low.read("LPCR"), ir.Constant(I64, int(LPCR.LD))), ir.Constant(I64, 0)
    )
    wide = low.b.ashr(low.b.shl(a, ir.Constant(I64, 8)), ir.Constant(I64, 8))
    ticks = low.b.select(large, wide, low.b.sext(low.b.trunc(a, I32), I64))
    low.write("dec_deadline", low.b.add(low.now(), ticks))
    low.write("dec_written", ir.Constant(I64, 1))
    virtual = low.b.icmp_unsigned("!=", low.read("ticks_per_instruction"), ir.Constant(I64, 0))
    low.attend(low.b.or_(virtual, low.b.icmp_signed("<=", ticks, ir.Constant(I64, 0))))


#: The live registers that native code reads and writes itself; others are the concrete evaluator's.
LIVE_READ = frozenset({"TB", "TBU", "DEC"})
LIVE_WRITTEN = frozenset({"DEC"})


#: Every operation that native code does itself. A program with another is run by the concrete evaluator.
LOWERINGS: dict[str, Row] = {
    "const": lambda low, v: ir.Constant(ir.IntType(v.width), v.detail),
    "operand": _operand,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "udiv": _divide("udiv"),
    "urem": _divide("urem"),
    "sdiv": _divide("sdiv"),
    "srem": _divide("srem"),
    "and": _binary("and_"),
    "or": _binary("or_"),
    "xor": _binary("xor"),
    "not": lambda low, v, a: low.b.not_(a),
    "shl": _shift("shl"),
    "lshr": _shift("lshr"),
    "ashr": _shift("ashr"),
    "eq": _compare("icmp_unsigned", "=="),
    "ult": _compare("icmp_unsigned", "<"),
    "slt": _compare("icmp_signed", "<"),
    "select": lambda low, v, a, b, c: low.b.select(a, b, c),
    "zext": lambda low, v, a: low.b.zext(a, ir.IntType(v.width)),
    "sext": lambda low, v, a: low.b.sext(a, ir.IntType(v.width)),
    "extract": _extract,
    "concat": _concat,
    "clz": _bit_count("ctlz"),
    "ctz": _bit_count("cttz"),
    "popcount": _bit_count("ctpop"),
    "byteswap": lambda low, v, a: low.b.bswap(a) if v.width > 8 else a,
    "gpr": lambda low, v, a: low.b.load(low.gpr(a), typ=I64),
    "gpr_or_zero": _gpr_or_zero,
    "set_gpr": _set_gpr,
    "get": _get,
    "set": _set,
    "load": _load,
    "store": _store,
    "load_reserved": _load_reserved,
    "store_conditional": _store_conditional,
    "zero_block": _zero_block,
    "probe": _probe,
    "read_live": _read_live,
    "write_live": _write_live,
    "interrupt": _interrupt,
    "resync": _resync,
}


#: Operations that need a machine instruction of their own width: 128 bits are the concrete evaluator's.
_WORD_SIZED = frozenset({"load_reserved", "store_conditional", "udiv", "urem", "sdiv", "srem"})


def _is_native(statement: Value) -> bool:
    if statement.op not in LOWERINGS:
        return False
    if statement.op == "read_live":
        return statement.detail in LIVE_READ
    if statement.op == "write_live":
        return statement.detail in LIVE_WRITTEN
    return statement.op not in _WORD_SIZED or all(a.width <= 64 for a in (statement, *statement.args))


def is_native(program: Program) -> bool:
    """Whether native code does all of a program itself."""
    return all(_is_native(statement) for statement in program.statements())


__all__ = ["HANDLER", "LOWERINGS", "Encoding", "Lowering", "encoding", "is_native"]
