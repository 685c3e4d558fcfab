"""Programs as handlers.

A handler is the LLVM function of an instruction: ``i64 (record, state, TLB, budget)``. It does
its instruction and ends in a tail call of the next instruction's handler, so that there is no dispatch
loop and the four arguments stay in machine registers. If it cannot continue, it stores the budget and CIA
and returns a :class:`Left`.
"""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    CLOCK_POINTER,
    HANDLER_POINTER,
    I1,
    I8,
    I64,
    POINTER,
    HandlerEmitter,
    Rows,
    word,
)
from chronovisor.engine.native.encoding import Encoding, Source, register_or_zero
from chronovisor.engine.native.hosted import Host, hosts
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_SIZE,
    RECORD_SMALL,
    RECORD_WIDE,
    Left,
)
from chronovisor.engine.native.state_layout import OFFSETS, file_field
from chronovisor.isa.registers import FILES, RegisterFile
from chronovisor.isa.values import Program, Value

#: A machine mode: (64-bit, little-endian).
Mode = tuple[bool, bool]


class Lowering(HandlerEmitter):
    """Programs on their way into one handler, one after the other."""

    #: How the values of the program come about; None: each by its operation.
    encoding: Encoding | None = None

    def __init__(self, module: ir.Module, name: str, mode: Mode, rows: Rows) -> None:
        super().__init__(module, name, rows)
        self.sixty_four, self.little = mode
        self.nia = self.b.alloca(I64)
        self.jumped = self._flag()
        #: Why the `resync` that follows hands the thread back: a `Left`, or 0 if nothing asks for that.
        self.attention = self.b.alloca(I64)
        self.b.store(word(0), self.attention)
        #: What computes the program's result in place of its statements; the registers that were read, and
        #: the values that depend on them.
        self.host: Host | None = None
        self._sources: list[Value] = []
        self._derived: set[int] = set()
        #: An operand that names a register, and what is in that register.
        self.link: tuple[str, ir.Value] | None = None

    def do(self, program: Program, encoding: Encoding) -> None:
        """Do what a program does, with its operands as the record has them."""
        self.encoding = encoding
        self.values = {}
        self.begin(program)
        self.block(program.body)

    def begin(self, program: Program) -> None:
        """The statements that follow are a program's."""
        self.host, self._sources, self._derived = hosts().get(program.name), [], set()

    def is_hosted(self, v: Value) -> bool:
        """Whether a statement is done with by what this machine has for the whole program."""
        if self.host is None:
            return False
        if v.op == "read_file":
            self._sources.append(v)
            self._derived.add(id(v))
        elif v.op == "write_file":
            self.values[id(v.args[1])] = self.host(self, *map(self.value, self._sources))
        elif any(id(a) in self._derived for a in v.args):
            self._derived.add(id(v))
            return True
        return False

    def inline(self, program: Program, operand: ir.Value) -> None:
        """Do what a program of one operand does as part of the present one."""
        outer, self.encoding, self.host = self.encoding, None, None
        self.values.update((id(s), operand) for s in program.statements() if s.op == "operand")
        self.block(program.body)
        self.encoding = outer

    def step(self, link: tuple[str, ir.Value] | None) -> None:
        """The first instruction is done: go on with the one behind it, unless the budget is used up."""
        spent = self.unlikely(self.b.icmp_unsigned("==", self.budget, word(1)), "spent")
        with self.elsewhere(spent):
            self.leave_done(Left.BUDGET, self.following())
        self.record = self.at(self.record, RECORD_SIZE)
        self.budget = self.b.sub(self.budget, word(1))
        self.link = link

    def _flag(self) -> ir.Value:
        place = self.b.alloca(I1)
        self.b.store(ir.Constant(I1, 0), place)
        return place

    # Values

    def statement(self, v: Value) -> None:
        """Do one statement as the encoding says."""
        if self.is_hosted(v):
            return
        if v.op == "operand" and id(v) in self.values:
            return
        source = Source.COMPUTED if self.encoding is None or self.lanes else self.encoding.sources[id(v)]
        if source is Source.DROPPED:
            return
        if source is Source.COMPUTED:
            self.by_operation(v)
        elif source is Source.RECORD:
            self.values[id(v)] = self._from_record(v, v.width)
        elif source is Source.REGISTER:
            read = register_or_zero(v)
            assert read is not None
            linked = self.linked(read)
            self.values[id(v)] = self._chosen(v, read) if linked is None else linked
        else:
            self.jump_to(self.following())  # any address will do: the record has the distance

    def by_operation(self, v: Value) -> None:
        """Do one statement as its operation's row says."""
        super().statement(v)

    def _chosen(self, v: Value, read: Value) -> ir.Value:
        place = self.register(FILES[str(read.detail)], self._from_record(v, 64))
        return self.b.load(place, typ=ir.IntType(v.width))

    def _from_record(self, v: Value, width: int) -> ir.Value:
        assert self.encoding is not None
        kind, number = self.encoding.places[id(v)]
        value = self.wide(number) if kind == "wide" else self.small(number)
        wanted = ir.IntType(width)
        if value.type.width == width:
            return value
        return self.b.zext(value, wanted) if value.type.width < width else self.b.trunc(value, wanted)

    def linked(self, read: Value) -> ir.Value | None:
        """The register that ``read`` reads, if it is the one that the instruction before has just set."""
        number = read.args[0]
        if self.link is None or number.op != "operand" or number.detail != self.link[0]:
            return None
        return self.link[1]

    # Record and registers

    def address(self) -> ir.Value:
        """The instruction's own address."""
        return self.address_of(self.record)

    def following(self) -> ir.Value:
        """The address of the instruction behind this one."""
        return self.b.add(self.address(), word(4))

    def wide(self, number: int) -> ir.Value:
        """A wide fixed value."""
        return self.b.load(self.at(self.record, RECORD_WIDE + (8 * number)), typ=I64)

    def small(self, number: int) -> ir.Value:
        """A small fixed value."""
        return self.b.load(self.at(self.record, RECORD_SMALL + number), typ=I8)

    def register(self, file: RegisterFile, number: ir.Value) -> ir.Value:
        """The address of a register of a file."""
        shift = (file.width // 8).bit_length() - 1
        return self.at(self.at(self.state, OFFSETS[file_field(file)]), self.b.shl(number, word(shift)))

    def read_register(self, file: RegisterFile, number: ir.Value, width: int) -> ir.Value:
        """The value of a register of a file."""
        loaded = self.b.load(self.register(file, number), typ=ir.IntType(width))
        loaded.align = 8
        return loaded

    def set_register(self, file: RegisterFile, number: ir.Value, value: ir.Value) -> None:
        """Set a register of a file."""
        self.b.store(value, self.register(file, number)).align = 8

    # Control

    def leave(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back with CIA at ``address``."""
        self.write("CIA", address)
        self.b.store(self.budget, self.field("budget"))
        self.b.ret(word(why) if isinstance(why, Left) else why)

    def leave_done(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back behind this instruction."""
        before, self.budget = self.budget, self.b.sub(self.budget, word(1))
        self.leave(why, address)
        self.budget = before

    def now(self) -> ir.Value:
        """The clock, in ticks."""
        function = self.b.load(self.field("now"), typ=CLOCK_POINTER)
        return self.b.call(function, [self.state, self.budget])

    def attend(self, condition: ir.Value, why: Left) -> None:
        """If ``condition`` holds, the `resync` that follows hands the thread back."""
        before = self.b.load(self.attention, typ=I64)
        self.b.store(self.b.select(condition, word(why), before), self.attention)

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
        """Go on with the instruction at ``record``, or leave if the budget is used up."""
        left = self.b.sub(self.budget, word(1))
        spent = self.unlikely(self.b.icmp_unsigned("==", left, word(0)), "spent")
        handler = self.b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        self.go_on(handler, record, left)
        self.b.position_at_end(spent)
        self.leave_done(Left.BUDGET, self.address_of(record))

    def jump(self, target: ir.Value) -> None:
        """Go on at an address; leave if its page has no records."""
        record, missing = self.come_to(target)
        self.continue_at(record)
        self.b.position_at_end(missing)
        self.undecoded(target)

    def undecoded(self, target: ir.Value) -> None:
        """Leave for a page that has no records."""
        self.leave_done(Left.FETCH, target)

    def finish(self) -> None:
        """Go on with the next instruction, which is the one behind unless the program said otherwise."""
        if self.ended:
            return
        jumps, falls = self.block_named("jumps"), self.block_named("falls")
        self.b.cbranch(self.b.load(self.jumped, typ=I1), jumps, falls)
        self.b.position_at_end(falls)
        self.continue_at(self.at(self.record, RECORD_SIZE))
        self.b.position_at_end(jumps)
        if self.encoding is not None and self.encoding.jump is not None:
            self.continue_at(self.at(self.record, self.wide(self.encoding.jump)))
        else:
            self.jump(self.b.load(self.nia, typ=I64))

    # Memory

    def place(self, ea: ir.Value, size: int, store: bool) -> ir.Value:
        """Where ``size`` bytes at an effective address are in this process.

        It is looked up in the TLB, even in real mode: a page that the TLB has for stores is in the dirty log.
        If the TLB does not have the page, or if the access lies in two pages, `enter` sees to that.
        """
        if not self.sixty_four:
            ea = self.b.and_(ea, word(0xFFFFFFFF))
        b, kind = self.b, "store" if store else "load"
        tag, data = self.tlb_entry_at(self.present_tlb(), kind, ea)
        last = b.lshr(b.add(ea, word(size - 1)), word(PAGE_SHIFT))
        hit, miss = self.block_named("hit"), self.block_named("miss")
        b.cbranch(b.icmp_unsigned("==", b.load(tag, typ=I64), last), hit, miss).set_weights([4000, 1])

        b.position_at_end(miss)
        self.miss(ea, size, store)
        b.position_at_end(hit)
        return b.inttoptr(b.add(ea, b.load(data, typ=I64)), POINTER)

    def miss(self, ea: ir.Value, size: int, store: bool) -> None:
        """Leave an access that the TLB lacks, undone. `enter` translates.

        No call here: a handler that calls would save registers whenever it runs.
        """
        self.write("missing_address", ea)
        self.write("missing_size", word(size))
        self.leave(Left.MISSING_STORE if store else Left.MISSING_LOAD, self.address())

    def real_address(self, place: ir.Value) -> ir.Value:
        """The guest real address of what `place` found."""
        return self.b.sub(self.b.ptrtoint(place, I64), self.read("memory_at"))

    def swapped(self, value: ir.Value) -> ir.Value:
        """A value between the guest's byte order and this machine's little-endian one."""
        if self.little or value.type.width == 8:
            return value
        return self.b.bswap(value)
