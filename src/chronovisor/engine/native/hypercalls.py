"""Hypercalls in native code: ``hypercall(state)``, which answers what its programs can answer.

`enter` calls it behind an `sc 1`. The function is compiled for the programs of one hypervisor and is kept on
disk by their text.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from functools import cache

from llvmlite import ir

from chronovisor.engine.hypercalls import NUMBER_REGISTER, HypercallProgram
from chronovisor.engine.native import compiler, host_io
from chronovisor.engine.native.emitter import (
    CLOCK_POINTER,
    HYPERCALL,
    I1,
    I8,
    I64,
    POINTER,
    VOID,
    Row,
    ThreadEmitter,
    word,
)
from chronovisor.engine.native.layout import PAGE_SHIFT, Left, WordTable, WordTables
from chronovisor.engine.native.library import object_file, runtime
from chronovisor.engine.native.operations import LOWERINGS
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.engine.native.state_layout import OFFSETS, file_field
from chronovisor.engine.native.walk import load_real
from chronovisor.engine.python_source import source
from chronovisor.engine.statistics import HANDLERS
from chronovisor.isa.bits import MSR
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import Value

_SYMBOL = "chronovisor_hypercall"
_PAGE_SIZE = 1 << PAGE_SHIFT
_FIRST_TABLE, _TABLE_SIZE = WordTables.tables.offset, ctypes.sizeof(WordTable)


class _Answers(ThreadEmitter):
    """The function in the making."""

    def __init__(self, module: ir.Module, programs: Sequence[HypercallProgram]) -> None:
        super().__init__(module, HYPERCALL, _SYMBOL, _ROWS)
        self.function.attributes.add("nounwind")
        b = self.b
        self.outcome = b.alloca(I64)
        b.store(word(Left.BUDGET), self.outcome)
        self.declined, answered = self.block_named("declined"), self.block_named("answered")
        user = self.any(self.read("MSR"), int(MSR.PR))
        kernel = self.block_named("kernel")
        b.cbranch(user, self.declined, kernel)
        b.position_at_end(kernel)
        number = b.load(self.register("GPR", NUMBER_REGISTER), typ=I64)
        allowed = self.read("answers")
        choice = b.switch(number, self.declined)
        for one in programs:
            case, begin = self.block_named(one.program.name), self.block_named("begin")
            choice.add_case(word(one.number), case)
            b.position_at_end(case)
            b.cbranch(self.any(allowed, 1 << one.place), begin, self.declined)
            b.position_at_end(begin)
            self.ended = False
            self.block(one.program.body)
            b.branch(answered)
        b.position_at_end(self.declined)
        b.ret(word(Left.HYPERCALL))
        b.position_at_end(answered)
        self.write("hypercalls_answered", b.add(self.read("hypercalls_answered"), word(1)))
        b.ret(b.load(self.outcome, typ=I64))

    def register(self, file: str, number: int) -> ir.Value:
        """The address of a register of 64 bits."""
        return self.at(self.state, OFFSETS[file_field(FILES[file])] + 8 * number)

    def shared(self, v: Value) -> ir.Value:
        """The address of the shared word that a statement names."""
        assert isinstance(v.detail, int)
        return self.at(self.field("shared_words"), 8 * v.detail)

    def now(self) -> ir.Value:
        """The clock, in ticks: `enter` has counted the instructions up to here, the call included."""
        function = self.b.load(self.field("now"), typ=CLOCK_POINTER)
        return self.b.call(function, [self.state, self.read("begin")])

    def resync(self) -> None:
        """Have `enter` look for interrupts before the next instruction."""
        self.b.store(word(Left.RESYNC), self.outcome)

    def decline(self) -> None:
        """Hand the call up."""
        self.b.branch(self.declined)
        self.ended = True


def _number(v: Value) -> int:
    number = v.args[0].detail
    assert isinstance(number, int), "a register whose number is not known"
    return number


def _exchange(e: _Answers, v: Value, a: ir.Value, b: ir.Value) -> ir.Value:
    return e.b.extract_value(e.b.cmpxchg(e.shared(v), a, b, "seq_cst", "seq_cst"), 1)


def _init_page(e: _Answers, v: Value, page: ir.Value, origin: ir.Value) -> ir.Value:
    b = e.b
    last = b.sub(e.read("memory_size"), word(_PAGE_SIZE))
    there = b.and_(b.icmp_unsigned("<=", page, last), b.icmp_unsigned("<=", origin, last))
    with e.if_(there):
        base = b.inttoptr(e.read("memory_at"), POINTER)
        place, size, plain = e.at(base, page), word(_PAGE_SIZE), ir.Constant(I1, 0)
        if v.detail == "zero":
            fill = ir.FunctionType(VOID, [POINTER, I8, I64, I1])
            memset = e.function.module.declare_intrinsic("llvm.memset", [POINTER, I64], fill)
            b.call(memset, [place, ir.Constant(I8, 0), size, plain])
        else:
            copy = ir.FunctionType(VOID, [POINTER, POINTER, I64, I1])
            memmove = e.function.module.declare_intrinsic("llvm.memmove", [POINTER, POINTER, I64], copy)
            b.call(memmove, [place, e.at(base, origin), size, plain])
        # These stores use no entry of the TLB, so the log comes behind them. The program has seen to it that
        # the place is a whole page.
        b.fence("release")
        e.log_page(page)
    return there


def _table(e: _Answers, number: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The address of the table of words with that number, and its count of words: both 0 if there is none."""
    b, before = e.b, e.b.block
    tables = b.inttoptr(e.read("word_tables"), POINTER)
    behind = e.at(tables, b.add(b.mul(b.load(tables, typ=I64), word(_TABLE_SIZE)), word(_FIRST_TABLE)))
    look, next_one, found = (e.block_named(name) for name in ("look", "next_table", "found"))
    first = e.at(tables, _FIRST_TABLE)
    b.branch(look)
    b.position_at_end(look)
    table = b.phi(POINTER)
    table.add_incoming(first, before)
    is_behind = b.icmp_unsigned("==", table, behind)
    compare = e.block_named("compare")
    b.cbranch(is_behind, found, compare)
    b.position_at_end(compare)
    b.cbranch(b.icmp_unsigned("==", b.load(table, typ=I64), number), found, next_one)
    b.position_at_end(next_one)
    table.add_incoming(e.at(table, _TABLE_SIZE), next_one)
    b.branch(look)
    b.position_at_end(found)
    is_none = b.phi(I1)
    is_none.add_incoming(ir.Constant(I1, 1), look)
    is_none.add_incoming(ir.Constant(I1, 0), compare)
    # Behind the last table there is room for none: the first one is as good to look at.
    there = b.select(is_none, first, table)
    at = b.load(e.at(there, WordTable.at.offset), typ=I64)
    count = b.load(e.at(there, WordTable.count.offset), typ=I64)
    nothing = word(0)
    return b.inttoptr(b.select(is_none, nothing, at), POINTER), b.select(is_none, nothing, count)


def _set_words(
    e: _Answers, v: Value, number: ir.Value, first: ir.Value, count: ir.Value, value: ir.Value
) -> ir.Value:
    b, copies = e.b, v.detail == "copy"
    at, size = _table(e, number)
    there = b.icmp_unsigned("!=", at, ir.Constant(POINTER, None))
    there = b.and_(there, b.icmp_unsigned("<=", first, size))
    there = b.and_(there, b.icmp_unsigned("<=", count, b.sub(size, first)))
    if copies:
        # The table's size bounds this product.
        memory, read = e.read("memory_size"), b.mul(count, word(8))
        fits = b.icmp_unsigned("<=", value, b.sub(memory, read))
        there = b.and_(there, b.and_(b.icmp_unsigned("<=", read, memory), fits))
    source = b.add(e.read("memory_at"), value)
    with e.if_(b.and_(there, b.icmp_unsigned("!=", count, word(0)))):
        target = e.at(at, b.mul(first, word(8)))
        before, loop, done = b.block, e.block_named("each_word"), e.block_named("words_set")
        b.branch(loop)
        b.position_at_end(loop)
        number_set = b.phi(I64)
        number_set.add_incoming(word(0), before)
        distance = b.mul(number_set, word(8))
        content = value
        if copies:
            content = b.load(b.inttoptr(b.add(source, distance), POINTER), typ=I64)
            content.align = 1
            content = b.bswap(content)
        b.store(content, e.at(target, distance))
        following = b.add(number_set, word(1))
        number_set.add_incoming(following, loop)
        b.cbranch(b.icmp_unsigned("<", following, count), loop, done)
        b.position_at_end(done)
    return there


def _with_word(
    e: _Answers, number: ir.Value, place: ir.Value, act: Callable[[ir.Value], ir.Value], absent: ir.Value
) -> ir.Value:
    """What ``act`` makes of the address of a word of a table, or ``absent`` if there is no such word."""
    b = e.b
    at, size = _table(e, number)
    before, done = b.block, e.block_named("word_done")
    there = e.block_named("word_there")
    b.cbranch(b.icmp_unsigned("<", place, size), there, done)
    b.position_at_end(there)
    found = act(e.at(at, b.mul(place, word(8))))
    b.branch(done)
    b.position_at_end(done)
    result = b.phi(absent.type)
    result.add_incoming(absent, before)
    result.add_incoming(found, there)
    return result


def _read_word(e: _Answers, v: Value, number: ir.Value, place: ir.Value) -> ir.Value:
    return _with_word(e, number, place, lambda at: e.b.load(at, typ=I64), word(0))


def _exchange_word(
    e: _Answers, v: Value, number: ir.Value, place: ir.Value, expected: ir.Value, new: ir.Value
) -> ir.Value:
    def act(at: ir.Value) -> ir.Value:
        return e.b.extract_value(e.b.cmpxchg(at, expected, new, "seq_cst", "seq_cst"), 1)

    return _with_word(e, number, place, act, ir.Constant(I1, 0))


def _store_real(e: _Answers, v: Value, address: ir.Value, value: ir.Value) -> None:
    b = e.b
    with e.if_(b.icmp_unsigned("<=", address, b.sub(e.read("memory_size"), word(8)))):
        # Whoever sees this store sees those before it.
        b.fence("release")
        b.store(b.bswap(value), e.memory_at(address), align=1)
        b.fence("release")
        e.log_page(address)
        e.log_page(b.add(address, word(7)))


_ROWS: dict[str, Row] = {
    **PURE_ROWS,
    "get": lambda e, v: e.read(str(v.detail), v.width),
    "set": lambda e, v, a: e.write(str(v.detail), a),
    "read_file": lambda e, v, a: e.b.load(e.register(str(v.detail), _number(v)), typ=I64),
    "write_file": lambda e, v, a, b: e.b.store(b, e.register(str(v.detail), _number(v))) and None,
    "read_live": LOWERINGS["read_live"],
    "read_shared": lambda e, v: e.b.load(e.shared(v), typ=I64),
    "exchange_shared": _exchange,
    "load_real": load_real,
    "store_real": _store_real,
    "host_io": host_io.host_io,
    "nap": host_io.nap,
    "alarm": host_io.alarm,
    "watch": host_io.watch,
    "init_page": _init_page,
    "set_words": _set_words,
    "read_word": _read_word,
    "exchange_word": _exchange_word,
    "resync": lambda e, v: e.resync(),
    "decline": lambda e, v: e.decline(),
}


@cache
def hypercall_address(programs: tuple[HypercallProgram, ...]) -> int:
    """The address of ``hypercall`` for these programs."""
    digest = hashlib.sha256(compiler.fingerprint().encode())
    for one in programs:
        digest.update(f"{one.number} {one.place} {source(one.program, little=False)}".encode())

    def module() -> ir.Module:
        made = compiler.new_module("hypercalls")
        _Answers(made, programs)
        return made

    code = object_file("hypercalls", digest.hexdigest()[:32], module)
    (address,) = runtime().load("hypercalls", code, HANDLERS, _SYMBOL)
    return address
