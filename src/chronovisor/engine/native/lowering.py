"""Programs as LLVM functions.

A handler is ``tailcc i64 (state, record, memory, budget)``. It does its instruction and ends in a tail
call of the next instruction's handler, so that there is no dispatch loop and the four stay in machine
registers. Where it cannot go on, it stores the budget and CIA and returns a :class:`Left`.
"""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.encoding import Encoding
from chronovisor.engine.native.layout import (
    OFFSETS,
    PAGE_SHIFT,
    RECORD_ADDRESS,
    RECORD_HANDLER,
    RECORD_SIZE,
    RECORD_SMALL,
    RECORD_WIDE,
    Left,
)
from chronovisor.isa.values import Block, Program, Value, When

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = ir.PointerType()
HANDLER = ir.FunctionType(I64, [POINTER, POINTER, POINTER, I64])
HANDLER_POINTER = ir.PointerType(HANDLER)

#: ``now(state, budget)``: the clock in ticks.
CLOCK = ir.FunctionType(I64, [POINTER, I64])
_CLOCK_POINTER = ir.PointerType(CLOCK)

_UNLIKELY = [1, 4000]


def word(value: int) -> ir.Constant:
    """A 64-bit number."""
    return ir.Constant(I64, value)


class Lowering:
    """Programs on their way into one LLVM function, one after the other."""

    encoding: Encoding

    def __init__(self, module: ir.Module, name: str, little: bool) -> None:
        self.little = little
        self.function = ir.Function(module, HANDLER, name)
        self.function.calling_convention = "tailcc"
        self.function.attributes.add("nounwind")
        self.state, self.record, self.memory, self.budget = self.function.args
        for pointer in (self.state, self.record, self.memory):
            pointer.add_attribute("noalias")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.values: dict[int, ir.Value] = {}
        self.nia = self.b.alloca(I64)
        self.jumped = self._flag()
        self.attention = self._flag()
        self.ended = False
        #: An operand that names a register, and what is in that register.
        self.link: tuple[str, ir.Value] | None = None

    def do(self, program: Program, encoding: Encoding) -> None:
        """Do what a program does, with its operands as the record has them."""
        self.encoding = encoding
        self.values = {}
        self.block(program.body)

    def step(self, link: tuple[str, ir.Value] | None) -> None:
        """The first instruction is done: go over to the one behind it, unless the budget is used up."""
        spent = self.unlikely(self.b.icmp_unsigned("==", self.budget, word(1)), "spent")
        on = self.b.block
        self.b.position_at_end(spent)
        self.leave_done(Left.BUDGET, self.following())
        self.b.position_at_end(on)
        self.record = self.at(self.record, RECORD_SIZE)
        self.budget = self.b.sub(self.budget, word(1))
        self.link = link

    def linked(self, v: Value) -> ir.Value | None:
        """A register's value, where it is the one that went over from the instruction before."""
        if self.link is None or v.args[0].op != "operand" or v.args[0].detail != self.link[0]:
            return None
        return self.link[1]

    def _flag(self) -> ir.Value:
        place = self.b.alloca(I1)
        self.b.store(ir.Constant(I1, 0), place)
        return place

    # State and record

    def at(self, base: ir.Value, offset: int | ir.Value) -> ir.Value:
        """The address ``offset`` bytes behind ``base``."""
        index = word(offset) if isinstance(offset, int) else offset
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

    def following(self) -> ir.Value:
        """The address of the instruction behind this one."""
        return self.b.add(self.address(), word(4))

    def wide(self, number: int) -> ir.Value:
        """A wide fixed value."""
        return self.b.load(self.at(self.record, RECORD_WIDE + 8 * number), typ=I64)

    def small(self, number: int) -> ir.Value:
        """A small fixed value."""
        return self.b.load(self.at(self.record, RECORD_SMALL + number), typ=I8)

    def fixed(self, v: Value) -> ir.Value | None:
        """A value that was computed when the instruction was decoded; None: it was not."""
        kind, number = self.encoding.places.get(id(v), ("", 0))
        if v.op == "gpr_or_zero" or not kind:
            return None
        return self._sized(self.wide(number) if kind == "wide" else self.small(number), v.width)

    def _sized(self, value: ir.Value, width: int) -> ir.Value:
        wanted = ir.IntType(width)
        if value.type.width == width:
            return value
        return self.b.zext(value, wanted) if value.type.width < width else self.b.trunc(value, wanted)

    def base(self, v: Value) -> ir.Value | None:
        """The number of the register that (RA|0) names, where it was computed at decode time."""
        place = self.encoding.places.get(id(v))
        return None if place is None else self._sized(self.small(place[1]), 64)

    def gpr(self, number: ir.Value) -> ir.Value:
        """The address of a general purpose register."""
        return self.at(self.state, self.b.shl(number, word(3)))

    # Control

    def block_named(self, name: str) -> ir.Block:
        """A new basic block."""
        return self.function.append_basic_block(name)

    def unlikely(self, condition: ir.Value, name: str) -> ir.Block:
        """Branch where ``condition`` holds, which is rare; go on where it does not."""
        rare, on = self.block_named(name), self.block_named("on")
        self.b.cbranch(condition, rare, on).set_weights(_UNLIKELY)
        self.b.position_at_end(on)
        return rare

    def leave(self, why: Left, address: ir.Value) -> None:
        """Hand the thread back with CIA at ``address``."""
        self.write("CIA", address)
        self.b.store(self.budget, self.field("budget"))
        self.b.ret(word(int(why)))

    def leave_done(self, why: Left, address: ir.Value) -> None:
        """Hand the thread back behind this instruction."""
        before, self.budget = self.budget, self.b.sub(self.budget, word(1))
        self.leave(why, address)
        self.budget = before

    def now(self) -> ir.Value:
        """The clock, in ticks."""
        function = self.b.load(self.field("now"), typ=_CLOCK_POINTER)
        return self.b.call(function, [self.state, self.budget])

    def attend(self, condition: ir.Value) -> None:
        """Where ``condition`` holds, the `resync` that follows hands the thread back."""
        self.b.store(self.b.or_(condition, self.b.load(self.attention, typ=I1)), self.attention)

    def slow(self) -> None:
        """Leave this instruction, undone, to the concrete evaluator."""
        self.leave(Left.SLOW, self.address())

    def jump_to(self, target: ir.Value) -> None:
        """The next instruction is at ``target``."""
        self.b.store(target, self.nia)
        self.b.store(ir.Constant(I1, 1), self.jumped)

    def next_address(self) -> ir.Value:
        """Where the next instruction is, as far as the program has said."""
        return self.b.select(
            self.b.load(self.jumped, typ=I1), self.b.load(self.nia, typ=I64), self.following()
        )

    def continue_at(self, record: ir.Value) -> None:
        """Go on with the instruction at ``record``, or leave where the budget is used up."""
        left = self.b.sub(self.budget, word(1))
        spent = self.unlikely(self.b.icmp_unsigned("==", left, word(0)), "spent")
        handler = self.b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        arguments = [self.state, record, self.memory, left]
        self.b.ret(self.b.call(handler, arguments, cconv="tailcc", tail="musttail"))
        self.b.position_at_end(spent)
        self.leave_done(Left.BUDGET, self.b.load(self.at(record, RECORD_ADDRESS), typ=I64))

    def jump(self, target: ir.Value) -> None:
        """Go on at an address; leave where it is not decoded."""
        page = self.b.lshr(target, word(PAGE_SHIFT))
        missing = self.unlikely(self.b.icmp_unsigned(">=", page, self.read("page_count")), "missing")
        table = self.b.inttoptr(self.read("page_table"), POINTER)
        records = self.b.load(self.at(table, self.b.shl(page, word(3))), typ=I64)
        empty = self.unlikely(self.b.icmp_unsigned("==", records, word(0)), "empty")
        number = self.b.lshr(self.b.and_(target, word((1 << PAGE_SHIFT) - 1)), word(2))
        self.continue_at(self.at(self.b.inttoptr(records, POINTER), self.b.mul(number, word(RECORD_SIZE))))
        self.b.position_at_end(empty)
        self.b.branch(missing)
        self.b.position_at_end(missing)
        self.leave_done(Left.FETCH, target)

    def finish(self) -> None:
        """Go on with the next instruction, unless the program said where to."""
        if self.ended:
            return
        jumps, falls = self.block_named("jumps"), self.block_named("falls")
        self.b.cbranch(self.b.load(self.jumped, typ=I1), jumps, falls)
        self.b.position_at_end(falls)
        self.continue_at(self.at(self.record, RECORD_SIZE))
        self.b.position_at_end(jumps)
        if self.encoding.jump is not None:
            self.continue_at(self.at(self.record, self.wide(self.encoding.jump)))
        else:
            self.jump(self.b.load(self.nia, typ=I64))

    # Statements

    def block(self, block: Block) -> None:
        """Do statements in order, up to one that ends the instruction."""
        for statement in block:
            if self.ended:
                return
            if isinstance(statement, When):
                self._when(statement)
            else:
                self._statement(statement)

    def _when(self, guarded: When) -> None:
        then, after = self.block_named("then"), self.block_named("after")
        self.b.cbranch(self.value(guarded.condition), then, after)
        self.b.position_at_end(then)
        self.block(guarded.body)
        if not self.ended:
            self.b.branch(after)
        self.ended = False
        self.b.position_at_end(after)

    def value(self, value: Value) -> ir.Value:
        """The LLVM value of a traced one."""
        return self.values[id(value)]

    def _statement(self, v: Value) -> None:
        from chronovisor.engine.native.operations import LOWERINGS

        result = self.fixed(v)
        if result is None:
            if v.op == "operand":
                return  # what is made of it is in the record
            if self.encoding.jump is not None and v.op == "set" and v.detail == "NIA":
                self.jump_to(self.following())  # anywhere: the record has the distance
                return
            arguments = [self.values.get(id(a)) for a in v.args]
            if None in arguments and id(v) not in self.encoding.places:
                return  # part of what is in the record
            result = LOWERINGS[v.op](self, v, *arguments)
        if result is not None:
            self.values[id(v)] = result

    # Memory

    def translated(self, ea: ir.Value) -> ir.Value:
        """The guest real address behind an effective one; the concrete evaluator's where there may be none.

        The limit leaves out the last bytes of memory, so that no access of up to 16 bytes crosses its end.
        Most effective addresses are real ones; others are masked and looked at again.
        """
        before = self.b.block
        outside = self.block_named("outside")
        good = self.block_named("inside")
        limit = self.read("data_limit")
        self.b.cbranch(self.b.icmp_unsigned("<", ea, limit), good, outside).set_weights([4000, 1])
        self.b.position_at_end(outside)
        masked = self.b.and_(ea, self.read("ea_mask"))
        bad = self.block_named("bad")
        self.b.cbranch(self.b.icmp_unsigned("<", masked, limit), good, bad).set_weights([4000, 1])
        self.b.position_at_end(bad)
        self.slow()
        self.b.position_at_end(good)
        real = self.b.phi(I64)
        real.add_incoming(ea, before)
        real.add_incoming(masked, outside)
        return real

    def mark_dirty(self, real: ir.Value, size: int) -> None:
        """Log the pages of a store that was just made: never before what was stored is there to be read, on
        machines that put stores in another order too.
        """
        pages = self.b.inttoptr(self.read("dirty_pages"), POINTER)
        self.b.fence("release")
        for byte in sorted({0, size - 1}):
            page = self.b.lshr(self.b.add(real, word(byte)), word(PAGE_SHIFT))
            self.b.store(ir.Constant(I8, 1), self.at(pages, page))

    def swapped(self, value: ir.Value) -> ir.Value:
        """A value between the guest's byte order and this machine's little-endian one."""
        if self.little or value.type.width == 8:
            return value
        return self.b.bswap(value)
