"""An LLVM function in the making: from traced values to LLVM's.

An :class:`Emitter` walks a program's statements and asks a table of rows, one an operation, for each
result. :class:`ThreadEmitter` adds what all functions over a thread's state share. Handlers
(``lowering``), the functions beside them (``runtime``) and compiled timebase courses are made with these.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import TypeAlias

from llvmlite import ir

from chronovisor.engine.hypercalls import LINE_WORD
from chronovisor.engine.native.folding import FoldingBuilder
from chronovisor.engine.native.layout import (
    DATA_USES,
    PAGE_SHIFT,
    PLAIN_AT,
    RECORD_OFFSET,
    RECORD_SIZE,
    TLB_ENTRIES,
    WAYS,
    DataEntry,
    FetchEntry,
    Tlb,
)
from chronovisor.engine.native.state_layout import OFFSETS, SPENT, file_field
from chronovisor.engine.native.target_processor import target_has
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import Block, Value, When

I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
POINTER = ir.PointerType()
VOID = ir.VoidType()

#: A handler: (record, state, TLB, budget) -> a `Left`. The pointer to the state points MIDDLE bytes behind
#: its beginning. The TLB is the one that the state names.
HANDLER = ir.FunctionType(I64, [POINTER, POINTER, POINTER, I64])
#: The middle of the general-purpose registers: instructions of the host that access one of them are short.
MIDDLE = OFFSETS[file_field(FILES["GPR"])] + FILES["GPR"].count * FILES["GPR"].width // 8 // 2
HANDLER_POINTER = ir.PointerType(HANDLER)
#: How handlers are called: they preserve no registers, as each goes on to another instead of returning.
HANDLER_CONVENTION = "preserve_nonecc"

#: ``now(state, budget)``: the clock in ticks.
CLOCK = ir.FunctionType(I64, [POINTER, I64])
CLOCK_POINTER = ir.PointerType(CLOCK)
#: The function ``reach``: the record of the instruction at an effective address, at which a thread arrives.
REACH = ir.FunctionType(POINTER, [POINTER, I64])
REACH_POINTER = ir.PointerType(REACH)

#: ``hypercall(state)`` -> a `Left`: BUDGET if it was answered, RESYNC if an interrupt may also be due,
#: HYPERCALL if it was not.
HYPERCALL = ir.FunctionType(I64, [POINTER])
HYPERCALL_POINTER = ir.PointerType(HYPERCALL)

#: ``translate(state, ea)``: the guest real address; FAULTED if the storage interrupt was entered;
#: NOT_TRANSLATED if the concrete evaluator has to find out; CHANGED if what was decoded of the page is old.
TRANSLATE = ir.FunctionType(I64, [POINTER, I64])
NOT_TRANSLATED = (1 << 64) - 1
FAULTED = (1 << 64) - 2
CHANGED = (1 << 64) - 3

_UNLIKELY = [1, 4000]
#: The bits that 8 fields of 4 bits have: side by side, two halves, four quarters, and each in a byte.
_SPREADS = (0xFFFF_FFFF, 0x0000_FFFF_0000_FFFF, 0x00FF_00FF_00FF_00FF, 0x0F0F_0F0F_0F0F_0F0F)

#: How an operation is done: (emitter, traced value, LLVM operands…) -> LLVM value, or None for an effect.
Row: TypeAlias = Callable[..., "ir.Value | None"]
Rows: TypeAlias = Mapping[str, Row]


def word(value: int) -> ir.Constant:
    """A 64-bit number."""
    return ir.Constant(I64, value)


@cache
def has_deposits() -> bool:
    """Whether this machine gathers and spreads bits."""
    return target_has("bmi2")


class Emitter:
    """One LLVM function; ``rows`` has a row for each operation of the programs that it does."""

    def __init__(self, function: ir.Function, rows: Rows) -> None:
        self.function = function
        self.rows = rows
        self.b = FoldingBuilder(function.append_basic_block("entry"))
        self.values: dict[int, ir.Value] = {}
        #: Within the function of an `each`: the operands as LLVM vectors of lanes. Else empty.
        self.lanes: tuple[ir.Value, ...] = ()
        #: Whether the statement before has ended the function.
        self.ended = False

    def slow(self) -> None:
        """End the function here, with what it was to do undone, if functions of its kind can."""
        raise NotImplementedError

    # LLVM

    def block_named(self, name: str) -> ir.Block:
        """A new basic block."""
        return self.function.append_basic_block(name)

    def unlikely(self, condition: ir.Value, name: str) -> ir.Block:
        """Branch to the returned block if ``condition`` holds, which is rare; go on if it does not."""
        rare, on = self.block_named(name), self.block_named("on")
        self.b.cbranch(condition, rare, on).set_weights(_UNLIKELY)
        self.b.position_at_end(on)
        return rare

    @contextmanager
    def each(self, count: ir.Value) -> Iterator[ir.Value]:
        """Do what is inside for each number below a count."""
        b = self.b
        loop, body, done = (self.block_named(n) for n in ("loop", "body", "done"))
        with b.goto_entry_block():
            number = b.alloca(I64)
        b.store(word(0), number)
        b.branch(loop)
        b.position_at_end(loop)
        present = b.load(number, typ=I64)
        b.cbranch(b.icmp_unsigned("<", present, count), body, done)
        b.position_at_end(body)
        yield present
        b.store(b.add(present, word(1)), number)
        b.branch(loop)
        b.position_at_end(done)

    @contextmanager
    def if_(self, condition: ir.Value) -> Iterator[None]:
        """Do what is inside if a condition holds."""
        then, after = self.block_named("then"), self.block_named("after")
        self.b.cbranch(condition, then, after)
        self.b.position_at_end(then)
        yield
        self.b.branch(after)
        self.b.position_at_end(after)

    def any(self, value: ir.Value, bits: int) -> ir.Value:
        """1 bit: one of these bits of a value is set."""
        return self.b.icmp_unsigned("!=", self.b.and_(value, word(bits)), word(0))

    def elsewhere(self, block: ir.Block) -> AbstractContextManager[None]:
        """Within this context instructions go to the end of another block."""
        there: AbstractContextManager[None] = self.b.goto_block(block)
        return there

    def at(self, base: ir.Value, offset: int | ir.Value) -> ir.Value:
        """The address ``offset`` bytes behind ``base``."""
        index = word(offset) if isinstance(offset, int) else offset
        return self.b.gep(base, [index], inbounds=True, source_etype=I8)

    # Types

    def integer(self, width: int) -> ir.Type:
        """The type of a value: an integer, or within an `each` a vector of a lane's integers."""
        integer = ir.IntType(width)
        return ir.VectorType(integer, self.lanes[0].type.count) if self.lanes else integer

    # Programs

    def block(self, block: Block) -> None:
        """Do statements in order, up to one that ends the function."""
        for statement in block:
            if self.ended:
                return
            if isinstance(statement, When):
                self._when(statement)
            else:
                self.statement(statement)

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

    def statement(self, v: Value) -> None:
        """Do one statement."""
        result = self.rows[v.op](self, v, *(self.value(a) for a in v.args))
        if result is not None:
            self.values[id(v)] = result


class ThreadEmitter(Emitter):
    """A function whose first argument is a thread's state."""

    def __init__(self, module: ir.Module, kind: ir.FunctionType, name: str, rows: Rows | None = None) -> None:
        super().__init__(ir.Function(module, kind, name), rows or {})
        self.state: ir.Value = self.function.args[0]

    def field(self, name: str) -> ir.Value:
        """The address of a field of the state."""
        return self.at(self.state, OFFSETS[name])

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state."""
        if name != "CR":
            return self.b.load(self.field(name), typ=ir.IntType(width))
        whole = self._gathered(self.b.bswap(self.b.load(self.field("CR_FIELDS"), typ=I64)))
        return whole if width == I64.width else self.b.trunc(whole, ir.IntType(width))

    def write(self, name: str, value: ir.Value) -> None:
        """Set a field of the state, zero-extended to its 64 bits."""
        wide = value if value.type == I64 else self.b.zext(value, I64)
        if name == "CR":
            name, wide = "CR_FIELDS", self.b.bswap(self._spread(wide))
        self.b.store(wide, self.field(name))

    def _gathered(self, fields: ir.Value) -> ir.Value:
        """Fields of 4 bits, which are in the bytes of a value, side by side."""
        if has_deposits():
            return self._by_host("pext", fields)
        for shift, kept in zip((4, 8, 16), reversed(_SPREADS[:-1]), strict=True):
            fields = self.b.and_(self.b.or_(fields, self.b.lshr(fields, word(shift))), word(kept))
        return fields

    def _spread(self, fields: ir.Value) -> ir.Value:
        """The inverse of `_gathered`."""
        if has_deposits():
            return self._by_host("pdep", fields)
        for shift, kept in zip((16, 8, 4), _SPREADS[1:], strict=True):
            fields = self.b.and_(self.b.or_(fields, self.b.shl(fields, word(shift))), word(kept))
        return fields

    def _by_host(self, way: str, value: ir.Value) -> ir.Value:
        kind = ir.FunctionType(I64, [I64, I64])
        function = self.function.module.declare_intrinsic(f"llvm.x86.bmi.{way}.64", [], kind)
        return self.b.call(function, [value, word(_SPREADS[-1])])

    def memory_at(self, address: ir.Value) -> ir.Value:
        """Where the byte at a real address is in this process."""
        return self.b.inttoptr(self.b.add(self.read("memory_at"), address), POINTER)

    def external_waits(self) -> ir.Value:
        """1 bit: an interrupt other than the decrementer's waits for MSR[EE]."""
        b = self.b
        line = b.load(self.at(self.field("shared_words"), 8 * LINE_WORD), typ=I64)
        raised = b.or_(self.read("pending"), b.and_(line, self.read("line_mask")))
        return b.icmp_unsigned("!=", raised, word(0))

    def log_page(self, real: ir.Value) -> None:
        """Put the page of a real address into the dirty log."""
        pages = self.b.inttoptr(self.read("dirty_pages"), POINTER)
        self.b.store(ir.Constant(I8, 1), self.at(pages, self.b.lshr(real, word(PAGE_SHIFT))))

    def addresses(self) -> ir.Value:
        """The bits of an effective address: in 32-bit mode the first page is behind the last one."""
        narrow = self.b.icmp_signed(">=", self.read("MSR"), word(0))
        return self.b.select(narrow, word(0xFFFFFFFF), word(-1))

    def address_of(self, record: ir.Value) -> ir.Value:
        """The effective address of the instruction with this record, in the page that is being executed."""
        return self.b.add(self.read("page_base"), self.offset_of(record))

    def offset_of(self, record: ir.Value) -> ir.Value:
        """The offset of the instruction with this record in its page, in bytes."""
        offset = self.b.load(self.at(record, RECORD_OFFSET), typ=I16)
        return self.b.zext(offset, I64)

    def plain_handler(self, record: ir.Value) -> ir.Value:
        """The address of a record's own handler if a region begins there, else 0."""
        # From the record to the page's first one, and from there to the handler's address.
        back = self.b.mul(self.offset_of(record), word(RECORD_SIZE // 4 - 8 // 4))
        return self.b.load(self.at(record, self.b.sub(word(PLAIN_AT), back)), typ=I64)

    def present_tlb(self) -> ir.Value:
        """The TLB that the thread uses."""
        return self.b.inttoptr(self.read("tlb"), POINTER)

    def tlb_entry(self, tlb: ir.Value, kind: str, page: ir.Value, way: int = 0) -> tuple[ir.Value, ir.Value]:
        """The addresses of an effective page's tag for a use, and of what belongs to the page, in a TLB.

        ``way`` says in which of its entries, if it is a page of data.
        """
        return self.tlb_entry_at(tlb, kind, self.b.shl(page, word(PAGE_SHIFT)), way)

    def tlb_entry_at(self, tlb: ir.Value, kind: str, ea: ir.Value, way: int = 0) -> tuple[ir.Value, ir.Value]:
        """The same of the page of an effective address: its number is not needed for that."""
        is_data = kind in DATA_USES
        of: type[DataEntry | FetchEntry] = DataEntry if is_data else FetchEntry
        shift = (ctypes.sizeof(of) * (WAYS if is_data else 1)).bit_length() - 1
        place = self.b.and_(self.b.lshr(ea, word(PAGE_SHIFT - shift)), word(TLB_ENTRIES - 1 << shift))
        first = (Tlb.of_data if is_data else Tlb.of_code).offset + way * ctypes.sizeof(of)
        entry = self.at(tlb, place)
        return self.at(entry, first + getattr(of, kind).offset), self.at(entry, first + of.data.offset)

    @contextmanager
    def moving(self, tlb: ir.Value) -> Iterator[None]:
        """While the thread moves entries of its TLB.

        Another thread that invalidates one meanwhile may not find it. So if ``moves`` is odd or changes, that
        thread asks for the whole TLB to be emptied.
        """
        self._count_move(tlb)
        yield
        self._count_move(tlb)

    def _count_move(self, tlb: ir.Value) -> None:
        b, counter = self.b, self.at(tlb, Tlb.moves.offset)
        b.fence("seq_cst")
        b.store(b.add(b.load(counter, typ=I64), word(1)), counter)
        b.fence("seq_cst")

    def call_handler(self, handler: ir.Value, record: ir.Value, budget: ir.Value) -> ir.Value:
        """Have handlers execute the instruction of a record and what follows; why they came back."""
        arguments = [record, self.at(self.state, MIDDLE), self.present_tlb(), budget]
        return self.b.call(handler, arguments, cconv=HANDLER_CONVENTION)

    def record_at(self, address: ir.Value) -> tuple[ir.Value, ir.Block]:
        """The record of the instruction at an effective address, and the block for one without a record.

        ``page_count`` says how many effective pages are real ones; it is 0 if they are translated. Others are
        looked up in the TLB. The page becomes the one that is being executed. The block is still empty.
        """
        b = self.b
        page = b.lshr(address, word(PAGE_SHIFT))
        real, translated, found = (self.block_named(n) for n in ("real", "translated", "found"))
        missing = self.block_named("missing")
        b.cbranch(b.icmp_unsigned("<", page, self.read("page_count")), real, translated)
        b.position_at_end(real)
        by_number = b.add(self.read("page_table"), b.shl(page, word(3)))
        b.branch(found)

        b.position_at_end(translated)
        tag, data = self.tlb_entry(self.present_tlb(), "fetch", page)
        hit = self.block_named("hit")
        b.cbranch(b.icmp_unsigned("==", b.load(tag, typ=I64), page), hit, missing).set_weights([4000, 1])
        b.position_at_end(hit)
        by_tlb = b.load(data, typ=I64)
        b.branch(found)

        b.position_at_end(found)
        entry = b.phi(I64)
        entry.add_incoming(by_number, real)
        entry.add_incoming(by_tlb, hit)
        records = b.load(b.inttoptr(entry, POINTER), typ=I64)
        there = self.block_named("there")
        b.cbranch(b.icmp_unsigned("!=", records, word(0)), there, missing).set_weights([4000, 1])
        b.position_at_end(there)
        inside = b.and_(address, word((1 << PAGE_SHIFT) - 1))
        self.write("page_base", b.sub(address, inside))
        self.write("page_entry", entry)
        number = b.lshr(inside, word(2))
        record = self.at(b.inttoptr(records, POINTER), b.mul(number, word(RECORD_SIZE)))
        return record, missing

    def come_to(self, address: ir.Value) -> tuple[ir.Value, ir.Block]:
        """The same as `record_at`; a region may be made to begin there, since handlers come to the page."""
        record, missing = self.record_at(address)
        before = self.read("handlers_from")
        is_spent = self.b.icmp_unsigned("==", before, word(SPENT))
        self.write("handlers_from", self.b.select(is_spent, before, self.b.ptrtoint(record, I64)))
        return record, missing


class HandlerEmitter(ThreadEmitter):
    """A handler, or a function that goes on like one."""

    def __init__(self, module: ir.Module, name: str, rows: Rows | None = None) -> None:
        super().__init__(module, HANDLER, name, rows)
        self.function.calling_convention = HANDLER_CONVENTION
        self.function.attributes.add("nounwind")
        # Functions that preserve all registers of the processor that handlers are made for are called from
        # regions too, which are made for this machine: none has anything in registers of 512 bits.
        for name, value in (("prefer-vector-width", 256), ("min-legal-vector-width", 0)):
            set.add(self.function.attributes, f'"{name}"="{value}"')
        self.record, self._middle, self.tlb, self.budget = self.function.args
        for pointer in (self.record, self._middle, self.tlb):
            pointer.add_attribute("noalias")
        self.state = self.at(self._middle, -MIDDLE)

    def present_tlb(self) -> ir.Value:
        """The TLB that the thread uses."""
        return self.tlb

    def use_tlb(self, tlb: ir.Value) -> None:
        """The thread uses another TLB, at this address, from here on."""
        self.write("tlb", tlb)
        self.tlb = self.b.inttoptr(tlb, POINTER)

    def go_on(self, handler: ir.Value, record: ir.Value, budget: ir.Value) -> None:
        """End this function with a jump to another handler."""
        arguments = [record, self._middle, self.present_tlb(), budget]
        self.b.ret(self.b.call(handler, arguments, cconv=HANDLER_CONVENTION, tail="musttail"))
