"""Small functions beside the handlers: reading the clock, making records, exchanging memory.

``now(state, budget)`` is the clock in ticks.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    CLOCK,
    HANDLER_POINTER,
    I1,
    I16,
    I32,
    I64,
    POINTER,
    REACH,
    Emitter,
    HandlerEmitter,
    ThreadEmitter,
    word,
)
from chronovisor.engine.native.layout import (
    PAGE_INSTRUCTIONS,
    RECORD_HANDLER,
    RECORD_OFFSET,
    RECORD_SIZE,
    Left,
)
from chronovisor.engine.native.operations import ATOMIC_SIZES, has_wide_atomics
from chronovisor.engine.native.state_layout import SOMEWHERE, SPENT

_CLOCK_MONOTONIC = 1
_NS_PER_SECOND = 1_000_000_000
#: 512 MHz is 64 ticks in 125 ns.
_TICKS, _NANOSECONDS = 64, 125


def define_clock(module: ir.Module) -> ir.Function:
    """Define ``now``."""
    e = ThreadEmitter(module, CLOCK, "chronovisor_now")
    e.function.attributes.add("nounwind")
    b, budget = e.b, e.function.args[1]
    step = e.read("ticks_per_instruction")
    real, virtual = e.block_named("real"), e.block_named("virtual")
    b.cbranch(b.icmp_unsigned("!=", step, word(0)), virtual, real)

    b.position_at_end(virtual)
    done = b.sub(e.read("begin"), budget)
    b.ret(b.add(e.read("virtual_ticks"), b.mul(done, step)))

    b.position_at_end(real)
    get_time = ir.Function(module, ir.FunctionType(I32, [I32, POINTER]), "clock_gettime")
    place = b.alloca(I64, size=2)
    b.call(get_time, [ir.Constant(I32, _CLOCK_MONOTONIC), place])
    # A second is a whole number of ticks.
    whole = b.mul(b.load(place, typ=I64), word(_NS_PER_SECOND // _NANOSECONDS * _TICKS))
    rest = b.udiv(b.mul(b.load(e.at(place, 8), typ=I64), word(_TICKS)), word(_NANOSECONDS))
    b.ret(b.add(whole, rest))
    return e.function


def _special_handler(module: ir.Module, name: str) -> tuple[HandlerEmitter, ir.Value]:
    """A handler that executes no instruction, and its record's address."""
    e = HandlerEmitter(module, name)
    return e, e.address_of(e.record)


def _leave(e: HandlerEmitter, why: Left, address: ir.Value) -> None:
    e.write("CIA", address)
    e.write("budget", e.budget)
    e.b.ret(word(why))


def define_leaving(module: ir.Module, name: str, why: Left) -> ir.Function:
    """Define a handler that does nothing but leave: for an instruction of the concrete evaluator, say."""
    e, address = _special_handler(module, name)
    _leave(e, why, address)
    return e.function


def _each(e: Emitter, act: Callable[[ir.Value], None]) -> None:
    """The body of a function that acts on each record of a page by its number, the one behind too."""
    b, before = e.b, e.b.block
    loop, done = e.block_named("loop"), e.block_named("done")
    b.branch(loop)
    b.position_at_end(loop)
    number = b.phi(I64)
    number.add_incoming(word(0), before)
    act(number)
    following = b.add(number, word(1))
    number.add_incoming(following, loop)
    b.cbranch(b.icmp_unsigned("<", following, word(PAGE_INSTRUCTIONS + 1)), loop, done)
    b.position_at_end(done)
    b.ret_void()


def _record(e: Emitter, records: ir.Value, number: ir.Value) -> ir.Value:
    return e.at(records, e.b.mul(number, word(RECORD_SIZE)))


def define_blank(module: ir.Module, undecoded: ir.Function, again: ir.Function) -> None:
    """Define ``blank(records)``: a page's records, undecoded.

    The one behind the last instruction looks up the page of its address.
    """
    e = Emitter(ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "chronovisor_blank"), {})
    (records,) = e.function.args

    def act(number: ir.Value) -> None:
        record = _record(e, records, number)
        behind = e.b.icmp_unsigned("==", number, word(PAGE_INSTRUCTIONS))
        e.b.store(e.b.select(behind, again, undecoded), e.at(record, RECORD_HANDLER))
        e.b.store(e.b.trunc(e.b.mul(number, word(4)), I16), e.at(record, RECORD_OFFSET))

    _each(e, act)


def define_retire(module: ir.Module, again: ir.Function) -> None:
    """Define ``retire(records)``: a thread that comes to one of them looks its address's page up again."""
    e = Emitter(ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "chronovisor_retire"), {})
    (records,) = e.function.args
    _each(e, lambda number: e.b.store(again, e.at(_record(e, records, number), RECORD_HANDLER)))


def define_again(module: ir.Module) -> ir.Function:
    """Define ``again``: the handler that goes on with the present record of its address."""
    e, address = _special_handler(module, "chronovisor_again")
    there, missing = e.record_at(address)
    handler = e.b.load(e.at(there, RECORD_HANDLER), typ=HANDLER_POINTER)
    e.go_on(handler, there, e.budget)
    e.b.position_at_end(missing)
    _leave(e, Left.FETCH, address)
    return e.function


def define_reach(module: ir.Module) -> None:
    """Define ``reach(state, address)``: the record of the instruction at an effective address.

    If the page has no records, it is one whose handler hands the thread back for that.
    """
    leaves = HandlerEmitter(module, "chronovisor_unreached")
    leaves.write("budget", leaves.budget)
    leaves.b.ret(word(Left.FETCH))
    nowhere = ir.GlobalVariable(module, POINTER, "chronovisor_nowhere")
    nowhere.linkage, nowhere.initializer = "internal", leaves.function.bitcast(POINTER)
    assert RECORD_HANDLER == 0
    e = ThreadEmitter(module, REACH, "chronovisor_reach")
    e.function.attributes.add("nounwind")
    address = e.function.args[1]
    record, missing = e.come_to(address)
    e.b.ret(record)
    e.b.position_at_end(missing)
    e.write("CIA", address)
    e.b.ret(nowhere)


def define_plain(module: ir.Module) -> ir.Function:
    """Define ``plain``: a record's instruction is executed by its own handler, even if it begins a region."""
    e = HandlerEmitter(module, "chronovisor_plain")
    b = e.b
    e.write("handlers_from", word(SPENT))
    plain = e.plain_handler(e.record)
    present = b.load(e.at(e.record, RECORD_HANDLER), typ=I64)
    # Records that were made since the region was put in have no other handler.
    has = b.icmp_unsigned("!=", plain, word(0))
    e.go_on(b.inttoptr(b.select(has, plain, present), HANDLER_POINTER), e.record, e.budget)
    return e.function


def define_end_of_piece(module: ir.Module, plain: ir.Function) -> None:
    """Define ``end_of_piece``: the rest of a piece is left, which may be too small for a region.

    The rest of the run's last piece is executed plainly.
    """
    e = HandlerEmitter(module, "chronovisor_end_of_piece")
    b = e.b
    last = e.unlikely(b.icmp_unsigned("!=", e.read("last_piece"), word(0)), "last")
    # Since the piece began somewhere, nothing but regions may have been executed.
    before = e.read("handlers_from")
    is_known = b.icmp_unsigned("!=", before, word(SOMEWHERE))
    e.write("handlers_from", b.select(is_known, before, word(SPENT)))
    _leave(e, Left.BUDGET, e.address_of(e.record))
    b.position_at_end(last)
    e.go_on(plain, e.record, e.budget)


def define_exchange_word(module: ir.Module) -> None:
    """Define ``exchange_word(place, expected, new)``: 1 bit, whether an aligned word was exchanged."""
    kind = ir.FunctionType(I1, [POINTER, I64, I64])
    e = Emitter(ir.Function(module, kind, "chronovisor_exchange_word"), {})
    e.function.return_value.add_attribute("zeroext")
    pair = e.b.cmpxchg(*e.function.args, "seq_cst", "seq_cst")
    e.b.ret(e.b.extract_value(pair, 1))


def define_exchange(module: ir.Module) -> None:
    """Define ``exchange(place, size, expected, new)``: 1 bit, whether the bytes at a place were exchanged.

    It compares 1, 2, 4, 8 or 16 bytes with the expected ones and stores the new ones if they are equal. For
    all threads that is one step. Places are aligned, except that 8 bytes may lie anywhere within an aligned
    block of 32.
    """
    kind = ir.FunctionType(I1, [POINTER, I64, POINTER, POINTER])
    e = Emitter(ir.Function(module, kind, "chronovisor_exchange"), {})
    e.function.return_value.add_attribute("zeroext")
    place, size, expected, new = e.function.args
    unknown = e.block_named("unknown")
    choice = e.b.switch(size, unknown)
    for number in ATOMIC_SIZES[has_wide_atomics()]:
        choice.add_case(word(number), case := e.block_named(f"bytes{number}"))
        e.b.position_at_end(case)
        integer = ir.IntType(8 * number)
        values = []
        for given in (expected, new):
            values.append(e.b.load(given, typ=integer))
            values[-1].align = 1
        pair = e.b.cmpxchg(place, *values, "seq_cst", "seq_cst")
        e.b.ret(e.b.extract_value(pair, 1))
    e.b.position_at_end(unknown)
    e.b.unreachable()
