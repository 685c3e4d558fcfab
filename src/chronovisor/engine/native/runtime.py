"""The functions beside the handlers: reading the clock, and entering native code.

``now(state, budget)`` is the clock in ticks. ``enter(state)`` runs a thread from CIA for at most
``run_left`` instructions and says why it came back (:class:`~chronovisor.engine.native.layout.Left`).
On the machine's own clock it looks up every few thousand instructions whether somebody wants the thread
back or its decrementer is due; in virtual time whoever set the budget has seen to both.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from chronovisor.engine.native.layout import (
    OFFSETS,
    PAGE_INSTRUCTIONS,
    PAGE_SHIFT,
    RECORD_ADDRESS,
    RECORD_HANDLER,
    RECORD_SIZE,
    Left,
)
from chronovisor.engine.native.lowering import CLOCK, HANDLER, HANDLER_POINTER, I8, I32, I64, POINTER
from chronovisor.isa.bits import MSR

#: Instructions between two looks at the clock and at requests from outside.
PIECE = 4096

_CLOCK_MONOTONIC = 1
_NS_PER_SECOND = 1_000_000_000
#: 512 MHz is 64 ticks in 125 ns; the quotient and the remainder apart keep the product within 64 bits.
_TICKS, _NANOSECONDS = 64, 125


def _word(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _field(b: ir.IRBuilder, state: ir.Value, name: str) -> ir.Value:
    return b.gep(state, [_word(OFFSETS[name])], inbounds=True, source_etype=I8)


def define_clock(module: ir.Module) -> ir.Function:
    """Define ``now``."""
    function = ir.Function(module, CLOCK, "chronovisor_now")
    function.attributes.add("nounwind")
    state, budget = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    step = b.load(_field(b, state, "ticks_per_instruction"), typ=I64)
    real = function.append_basic_block("real")
    virtual = function.append_basic_block("virtual")
    b.cbranch(b.icmp_unsigned("!=", step, _word(0)), virtual, real)

    b.position_at_end(virtual)
    done = b.sub(b.load(_field(b, state, "begin"), typ=I64), budget)
    b.ret(b.add(b.load(_field(b, state, "virtual_ticks"), typ=I64), b.mul(done, step)))

    b.position_at_end(real)
    get_time = ir.Function(module, ir.FunctionType(I32, [I32, POINTER]), "clock_gettime")
    place = b.alloca(I64, size=2)
    b.call(get_time, [ir.Constant(I32, _CLOCK_MONOTONIC), place])
    seconds = b.load(place, typ=I64)
    beside = b.load(b.gep(place, [_word(8)], inbounds=True, source_etype=I8), typ=I64)
    ns = b.add(b.mul(seconds, _word(_NS_PER_SECOND)), beside)
    whole = b.mul(b.udiv(ns, _word(_NANOSECONDS)), _word(_TICKS))
    rest = b.udiv(b.mul(b.urem(ns, _word(_NANOSECONDS)), _word(_TICKS)), _word(_NANOSECONDS))
    b.ret(b.add(whole, rest))
    return function


def define_entry(module: ir.Module, now: ir.Function) -> ir.Function:
    """Define ``enter``."""
    function = ir.Function(module, ir.FunctionType(I64, [POINTER, POINTER]), "chronovisor_enter")
    state, memory = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    piece, look, found, missing, call, came, spent, poll = (
        function.append_basic_block(n)
        for n in ("piece", "look", "found", "missing", "call", "came", "spent", "poll")
    )

    def get(name: str) -> ir.Value:
        return b.load(_field(b, state, name), typ=I64)

    def put(name: str, value: ir.Value) -> None:
        b.store(value, _field(b, state, name))

    virtual = b.icmp_unsigned("!=", get("ticks_per_instruction"), _word(0))
    b.branch(piece)

    b.position_at_end(piece)
    left = get("run_left")
    short = b.or_(virtual, b.icmp_signed("<", left, _word(PIECE)))
    size = b.select(short, left, _word(PIECE))
    put("begin", size)
    cia = get("CIA")
    page = b.lshr(cia, _word(PAGE_SHIFT))
    b.cbranch(b.icmp_unsigned("<", page, get("page_count")), look, missing)

    b.position_at_end(look)
    table = b.inttoptr(get("page_table"), POINTER)
    entry = b.gep(table, [b.shl(page, _word(3))], inbounds=True, source_etype=I8)
    records = b.load(entry, typ=I64)
    b.cbranch(b.icmp_unsigned("!=", records, _word(0)), found, missing)

    b.position_at_end(missing)
    b.ret(_word(Left.FETCH))

    b.position_at_end(found)
    number = b.lshr(b.and_(cia, _word((1 << PAGE_SHIFT) - 1)), _word(2))
    record = b.inttoptr(b.add(records, b.mul(number, _word(RECORD_SIZE))), POINTER)
    b.branch(call)

    b.position_at_end(call)
    place = b.gep(record, [_word(RECORD_HANDLER)], inbounds=True, source_etype=I8)
    handler = b.load(place, typ=HANDLER_POINTER)
    why = b.call(handler, [state, record, memory, size], cconv="tailcc")
    b.branch(came)

    b.position_at_end(came)
    put("run_left", b.sub(get("run_left"), b.sub(get("begin"), get("budget"))))
    b.cbranch(
        b.icmp_unsigned("==", why, _word(Left.BUDGET)), spent, poll_out := function.append_basic_block("out")
    )
    b.position_at_end(poll_out)
    b.ret(why)

    b.position_at_end(spent)
    over = b.icmp_signed("<=", get("run_left"), _word(0))
    wanted = b.icmp_unsigned("!=", get("exit_request"), _word(0))
    stop = function.append_basic_block("stop")
    b.cbranch(b.or_(over, wanted), stop, poll)
    b.position_at_end(stop)
    b.ret(_word(Left.BUDGET))

    b.position_at_end(poll)
    enabled = b.icmp_unsigned("!=", b.and_(get("MSR"), _word(int(MSR.EE))), _word(0))
    due = b.icmp_signed("<", get("dec_deadline"), b.call(now, [state, get("budget")]))
    waiting = b.or_(due, b.icmp_unsigned("!=", get("pending"), _word(0)))
    resync = function.append_basic_block("resync")
    b.cbranch(b.and_(enabled, waiting), resync, piece)
    b.position_at_end(resync)
    b.ret(_word(Left.RESYNC))
    return function


def define_leaving(module: ir.Module, name: str, why: Left) -> ir.Function:
    """Define a handler that does nothing but leave: for what only the concrete evaluator does, say."""
    function = ir.Function(module, HANDLER, name)
    function.calling_convention = "tailcc"
    state, record, _, budget = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    address = b.load(b.gep(record, [_word(RECORD_ADDRESS)], inbounds=True, source_etype=I8), typ=I64)
    b.store(address, _field(b, state, "CIA"))
    b.store(budget, _field(b, state, "budget"))
    b.ret(_word(why))
    return function


def _each(function: ir.Function, act: Callable[[ir.IRBuilder, ir.Value], None]) -> None:
    """The body of a function that acts on each record of a page by its number, the one behind too."""
    entry, loop, done = (function.append_basic_block(n) for n in ("entry", "loop", "done"))
    b = ir.IRBuilder(entry)
    b.branch(loop)
    b.position_at_end(loop)
    number = b.phi(I64)
    number.add_incoming(_word(0), entry)
    act(b, number)
    following = b.add(number, _word(1))
    number.add_incoming(following, loop)
    b.cbranch(b.icmp_unsigned("<", following, _word(PAGE_INSTRUCTIONS + 1)), loop, done)
    b.position_at_end(done)
    b.ret_void()


def _record(b: ir.IRBuilder, records: ir.Value, number: ir.Value) -> ir.Value:
    return b.gep(records, [b.mul(number, _word(RECORD_SIZE))], inbounds=True, source_etype=I8)


def _set_handler(b: ir.IRBuilder, record: ir.Value, handler: ir.Value) -> None:
    b.store(handler, b.gep(record, [_word(RECORD_HANDLER)], inbounds=True, source_etype=I8))


def define_blank(module: ir.Module, undecoded: ir.Function, again: ir.Function) -> None:
    """Define ``blank(records, start)``: a page's records, undecoded, of instructions from ``start``.

    The one behind the last instruction looks up the page of its address.
    """
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), "chronovisor_blank")
    records, start = function.args

    def act(b: ir.IRBuilder, number: ir.Value) -> None:
        record = _record(b, records, number)
        behind = b.icmp_unsigned("==", number, _word(PAGE_INSTRUCTIONS))
        _set_handler(b, record, b.select(behind, again, undecoded))
        address = b.add(start, b.mul(number, _word(4)))
        b.store(address, b.gep(record, [_word(RECORD_ADDRESS)], inbounds=True, source_etype=I8))

    _each(function, act)


def define_retire(module: ir.Module, again: ir.Function) -> None:
    """Define ``retire(records)``: whoever comes to one of them looks its address's page up again."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "chronovisor_retire")
    (records,) = function.args
    _each(function, lambda b, number: _set_handler(b, _record(b, records, number), again))


def define_again(module: ir.Module) -> ir.Function:
    """Define ``again``: the handler that goes on with the record of its address; it is no instruction."""
    function = ir.Function(module, HANDLER, "chronovisor_again")
    function.calling_convention = "tailcc"
    state, record, memory, budget = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    look, found, missing = (function.append_basic_block(n) for n in ("look", "found", "missing"))
    address = b.load(b.gep(record, [_word(RECORD_ADDRESS)], inbounds=True, source_etype=I8), typ=I64)
    page = b.lshr(address, _word(PAGE_SHIFT))
    count = b.load(_field(b, state, "page_count"), typ=I64)
    b.cbranch(b.icmp_unsigned("<", page, count), look, missing)
    b.position_at_end(look)
    table = b.inttoptr(b.load(_field(b, state, "page_table"), typ=I64), POINTER)
    place = b.gep(table, [b.shl(page, _word(3))], inbounds=True, source_etype=I8)
    records = b.load(place, typ=I64)
    b.cbranch(b.icmp_unsigned("!=", records, _word(0)), found, missing)
    b.position_at_end(missing)
    b.store(address, _field(b, state, "CIA"))
    b.store(budget, _field(b, state, "budget"))
    b.ret(_word(Left.FETCH))
    b.position_at_end(found)
    number = b.lshr(b.and_(address, _word((1 << PAGE_SHIFT) - 1)), _word(2))
    there = _record(b, b.inttoptr(records, POINTER), number)
    handler = b.load(
        b.gep(there, [_word(RECORD_HANDLER)], inbounds=True, source_etype=I8), typ=HANDLER_POINTER
    )
    b.ret(b.call(handler, [state, there, memory, budget], cconv="tailcc", tail="musttail"))
    return function
