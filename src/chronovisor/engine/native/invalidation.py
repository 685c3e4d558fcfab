"""Invalidations of translations in native code, of other threads too.

``invalidate(state)`` has translations forgotten. ``synchronize(state)`` waits until no other thread uses one
of them. ``forget_pages(target, process, first, last)`` forgets a few effective pages of a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.contexts import PROCESS_SHIFT, ContextEmitter
from chronovisor.engine.native.emitter import I32, I64, POINTER, VOID, ThreadEmitter, word
from chronovisor.engine.native.layout import CONTEXTS, DATA_USES, TLB_INVALID, WAYS, Peers, Tlb
from chronovisor.engine.native.state_layout import KEYS

#: ``forget_process`` of an invalidation that concerns every process.
ALL_PROCESSES: Final = (1 << 64) - 1

#: The most pages that an invalidation looks up one by one.
FEW_PAGES: Final = 16


def _concerns(e: ContextEmitter, key: ir.Value, process: ir.Value) -> ir.Value:
    """1 bit: the context with this key has translations of the process. All contexts have process 0's."""
    b = e.b
    whole = b.or_(
        b.icmp_unsigned("==", process, word(ALL_PROCESSES)), b.icmp_unsigned("==", process, word(0))
    )
    return b.or_(whole, b.icmp_unsigned("==", b.lshr(key, word(PROCESS_SHIFT)), process))


def define_forget_pages(module: ir.Module, ask_flush: ir.Function) -> ir.Function:
    """Define ``forget_pages(target, process, first, last)``: forget a few effective pages of any thread.

    If the target moves entries meanwhile, it is asked to empty its TLBs.
    """
    kind = ir.FunctionType(VOID, [POINTER, I64, I64, I64])
    e = ContextEmitter(module, kind, "chronovisor_forget_pages")
    e.function.attributes.add("nounwind")
    b = e.b
    _, process, first, last = e.function.args
    b.atomic_rmw("add", e.field("forgotten"), word(1), "seq_cst")
    contexts = b.inttoptr(e.read("contexts"), POINTER)
    # The tables were changed before this fence. A thread whose mark or key is read too early walks after its
    # own fence, so it sees the change.
    b.fence("seq_cst")
    with e.each(word(CONTEXTS)) as number:
        context = e.context(contexts, number)
        key = b.load(context, typ=I64)
        used = b.icmp_unsigned("!=", key, word(0))
        with e.if_(b.and_(used, _concerns(e, key, process))), e.each(word(KEYS)) as k:
            fresh = b.icmp_unsigned("==", b.load(e.stale(context, k), typ=I64), word(0))
            with e.if_(fresh):
                tlb = e.tlb_of(context, k)
                moves = e.at(tlb, Tlb.moves.offset)
                before = b.load_atomic(moves, "seq_cst", 8, typ=I64)
                e.count_invalidation(tlb)
                with e.each(b.add(b.sub(last, first), word(1))) as distance:
                    page = b.add(first, distance)
                    for use, way in (*product(DATA_USES, range(WAYS)), ("fetch", 0)):
                        tag, _data = e.tlb_entry(tlb, use, page, way)
                        with e.if_(b.icmp_unsigned("==", b.load(tag, typ=I64), page)):
                            b.store(word(TLB_INVALID), tag)
                b.fence("seq_cst")
                after = b.load_atomic(moves, "seq_cst", 8, typ=I64)
                moving = b.or_(b.icmp_unsigned("!=", before, after), e.any(before, 1))
                with e.elsewhere(e.unlikely(moving, "moving")):
                    b.call(ask_flush, [e.state])
                    b.ret_void()
    b.ret_void()
    return e.function


def _forget_process(e: ContextEmitter, process: ir.Value) -> None:
    """Forget all that the executing thread has translated for a process; it adopts its context anew."""
    b = e.b
    contexts = b.inttoptr(e.read("contexts"), POINTER)
    with e.each(word(CONTEXTS)) as number:
        context = e.context(contexts, number)
        with e.if_(_concerns(e, b.load(context, typ=I64), process)):
            for k in range(KEYS):
                b.store(word(1), e.stale(context, k))


def define_invalidate(module: ir.Module, forget_pages: ir.Function, ask_flush: ir.Function) -> ir.Function:
    """Define ``invalidate(state)``: do what the state says is to be forgotten.

    A few pages are looked up in the TLBs of all threads concerned. If it is more, this thread forgets the
    process, and others empty all contexts when they begin another piece of their runs.
    """
    e = ContextEmitter(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_invalidate")
    e.function.attributes.add("nounwind")
    b = e.b
    process, first, last = (e.read(f"forget_{part}") for part in ("process", "first", "last"))
    few = b.icmp_unsigned("<", b.sub(last, first), word(FEW_PAGES))
    every = b.icmp_unsigned("!=", e.read("forget_all"), word(0))
    own_few, own_many, others, done = (e.block_named(n) for n in ("own_few", "own_many", "others", "done"))
    b.cbranch(few, own_few, own_many)
    b.position_at_end(own_few)
    b.call(forget_pages, [e.state, process, first, last])
    b.cbranch(every, others, done)
    b.position_at_end(own_many)
    b.atomic_rmw("add", e.field("forgotten"), word(1), "seq_cst")
    _forget_process(e, process)
    b.cbranch(every, others, done)

    b.position_at_end(others)
    e.write("invalidated", word(1))
    with _each_peer(e) as peer:
        one, all_ = e.block_named("pages"), e.block_named("all")
        after = e.block_named("told")
        b.cbranch(few, one, all_)
        b.position_at_end(one)
        b.call(forget_pages, [peer, process, first, last])
        b.branch(after)
        b.position_at_end(all_)
        b.call(ask_flush, [peer])
        b.branch(after)
        b.position_at_end(after)
    b.branch(done)
    b.position_at_end(done)
    b.ret_void()
    return e.function


@contextmanager
def _each_peer(e: ContextEmitter) -> Iterator[ir.Value]:
    """Do what is inside for each other thread of the guest."""
    b = e.b
    peers = b.inttoptr(e.read("peers"), POINTER)
    own = b.ptrtoint(e.state, I64)
    with e.each(b.load(peers, typ=I64)) as number:
        place = e.at(e.at(peers, Peers.states.offset), b.shl(number, word(3)))
        address = b.load(place, typ=I64)
        with e.if_(b.icmp_unsigned("!=", address, own)):
            yield b.inttoptr(address, POINTER)


def define_await_piece(module: ir.Module) -> ir.Function:
    """Define ``await_piece(state)``: return once the thread is out of native code or has begun a new piece.

    What it then executes uses the TLB as it was when this was called. An access that was under way has been
    made.
    """
    e = ThreadEmitter(module, ir.FunctionType(ir.VoidType(), [POINTER]), "chronovisor_await_piece")
    give_way = ir.Function(module, ir.FunctionType(I32, []), "sched_yield")
    b = e.b
    loop, wait, done = (e.block_named(n) for n in ("loop", "wait", "done"))
    b.fence("seq_cst")
    begun = b.load_atomic(e.field("pieces"), "seq_cst", 8, typ=I64)
    b.branch(loop)
    b.position_at_end(loop)
    inside = b.load_atomic(e.field("inside"), "seq_cst", 8, typ=I64)
    pieces = b.load_atomic(e.field("pieces"), "seq_cst", 8, typ=I64)
    over = b.or_(b.icmp_unsigned("==", inside, word(0)), b.icmp_unsigned("!=", pieces, begun))
    b.cbranch(over, done, wait)
    b.position_at_end(wait)
    b.call(give_way, [])
    b.branch(loop)
    b.position_at_end(done)
    b.ret_void()
    return e.function


def define_synchronize(module: ir.Module, await_piece: ir.Function) -> ir.Function:
    """Define ``synchronize(state)``: wait until no other thread uses what this one has invalidated.

    Meanwhile this thread counts as one that uses no translation, so two threads can wait for each other.
    """
    e = ContextEmitter(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_synchronize")
    e.function.attributes.add("nounwind")
    b = e.b
    e.write("invalidated", word(0))
    b.fence("release")
    e.write("inside", word(0))
    with _each_peer(e) as peer:
        b.call(await_piece, [peer])
    e.write("inside", word(1))
    b.fence("seq_cst")
    b.ret_void()
    return e.function
