"""Control in native code: contexts of translation, interrupts, and invalidations between threads.

A *context* is the state of the registers that translation depends on. ``adopt(state)`` has the thread use
the context that its registers name. ``interrupt(state, number, cause)`` enters an interrupt.
``invalidate(state)`` forgets translations, of other threads too; ``synchronize(state)`` waits until these
have carried that out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8, I32, I64, POINTER, Row, ThreadEmitter, word
from chronovisor.engine.native.layout import (
    CONTEXTS,
    KEYS,
    TLB_ENTRIES,
    TLB_INVALID,
    ModePages,
    Peers,
    ThreadContext,
    Tlb,
)
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.engine.state import REAL_MODE_MASK
from chronovisor.isa.bits import MSR
from chronovisor.isa.interrupts import AIL3_OFFSET, INTERRUPT_NUMBERS, INTERRUPTS, entry
from chronovisor.isa.values import Value

VOID = ir.VoidType()

#: The states of MSR in which the concrete evaluator runs the guest.
STEPPED: Final = int(MSR.SE | MSR.BE)

#: ``forget_process`` of an invalidation that concerns every process.
ALL_PROCESSES: Final = (1 << 64) - 1

#: The most pages that an invalidation looks up one by one.
FEW_PAGES: Final = 16

_KEY_SHIFT: Final = 62
"""Where AMR and IAMR have the two bits of key 0."""
_MODE: Final = int(MSR.PR | MSR.IR | MSR.DR | MSR.LE)
_USED: Final = 1 << 2
_SF_SHIFT, _IAMR_SHIFT, _PROCESS_SHIFT = 1, 16, 32
_HASH: Final = 0x9E37_79B9_7F4A_7C15
"""2^64 divided by the golden ratio: products with it are spread evenly in their upper bits."""


class _Control(ThreadEmitter):
    """What the functions here share."""

    def context(self, contexts: ir.Value, number: ir.Value) -> ir.Value:
        """The address of a context of an array."""
        return self.at(contexts, self.b.mul(number, word(ctypes.sizeof(ThreadContext))))

    def stale(self, context: ir.Value, key: ir.Value | int) -> ir.Value:
        """The address of the mark that a context's TLB for a key is stale."""
        return self._part(context, ThreadContext.stale.offset, key)

    def tlb_of(self, context: ir.Value, key: ir.Value | int) -> ir.Value:
        """A context's TLB for a key."""
        place = self._part(context, ThreadContext.tlbs.offset, key)
        return self.b.inttoptr(self.b.load(place, typ=I64), POINTER)

    def _part(self, context: ir.Value, offset: int, key: ir.Value | int) -> ir.Value:
        number = word(key) if isinstance(key, int) else key
        return self.at(self.at(context, offset), self.b.shl(number, word(3)))

    def count_invalidation(self, tlb: ir.Value) -> None:
        """Have the owner of a TLB withdraw an entry that it is just making."""
        counter = self.at(tlb, Tlb.generation.offset)
        self.b.atomic_rmw("add", counter, word(1), "seq_cst")

    def empty(self, tlb: ir.Value) -> None:
        """Forget everything that a TLB has."""
        self.count_invalidation(tlb)
        fill = self.function.module.declare_intrinsic("llvm.memset", [POINTER, I64])
        tags = self.at(tlb, Tlb.load_tags.offset)
        size = word(3 * 8 * TLB_ENTRIES)
        self.b.call(fill, [tags, ir.Constant(I8, 0xFF), size, ir.Constant(I1, 0)])

    @contextmanager
    def each(self, count: ir.Value) -> Iterator[ir.Value]:
        """Do what is inside for each number below a count."""
        b = self.b
        loop, body, done = (self.block_named(n) for n in ("loop", "body", "done"))
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


def define_adopt(module: ir.Module) -> ir.Function:
    """Define ``adopt(state)``: take over the registers that say how instructions and data are reached.

    1 bit: native code can run the thread as it is now. If not, nothing has changed.
    """
    e = _Control(module, ir.FunctionType(I1, [POINTER]), "chronovisor_adopt")
    e.function.attributes.add("nounwind")
    b = e.b
    with e.elsewhere(e.unlikely(e.any(e.read("MSR"), STEPPED), "stepped")):
        b.ret(ir.Constant(I1, 0))
    key = _context_key(e)
    table = e.read("PATE1")
    same = b.and_(
        b.icmp_unsigned("==", key, e.read("context_key")),
        b.icmp_unsigned("==", table, e.read("context_table")),
    )
    known, other, chosen = (e.block_named(n) for n in ("known", "other", "chosen"))
    b.cbranch(same, known, other)
    b.position_at_end(known)
    before = e.read("context")
    b.branch(chosen)

    b.position_at_end(other)
    with e.if_(b.icmp_unsigned("!=", table, e.read("context_table"))):
        _make_all_stale(e)
        e.write("context_table", table)
    _choose_pages(e)
    e.write("context_key", key)
    number = b.lshr(b.mul(key, word(_HASH)), word(64 - (CONTEXTS.bit_length() - 1)))
    context = e.context(b.inttoptr(e.read("contexts"), POINTER), number)
    with e.if_(b.icmp_unsigned("!=", b.load(context, typ=I64), key)):
        for k in range(KEYS):
            b.store(word(1), e.stale(context, k))
        b.store(key, context)
    found = b.ptrtoint(context, I64)
    e.write("context", found)
    end = b.block
    b.branch(chosen)

    b.position_at_end(chosen)
    at = b.phi(I64)
    at.add_incoming(before, known)
    at.add_incoming(found, end)
    context = b.inttoptr(at, POINTER)
    key_0 = b.lshr(e.read("AMR"), word(_KEY_SHIFT))
    tlb = e.tlb_of(context, key_0)
    mark = e.stale(context, key_0)
    with e.if_(b.icmp_unsigned("!=", b.load(mark, typ=I64), word(0))):
        e.empty(tlb)
        b.store(word(0), mark)
        # Others look at the mark before they leave a TLB alone: see `define_forget_pages`.
        b.fence("seq_cst")
    for k in range(KEYS):
        usable = b.icmp_unsigned("==", b.load(e.stale(context, k), typ=I64), word(0))
        address = b.select(usable, b.ptrtoint(e.tlb_of(context, k), I64), word(0))
        b.store(address, e.at(e.field("tlb_by_key"), 8 * k))
    e.write("tlb", b.ptrtoint(tlb, I64))
    b.ret(ir.Constant(I1, 1))
    return e.function


def _context_key(e: _Control) -> ir.Value:
    """The registers that a context depends on, but for AMR and PATE1, in one number."""
    b, msr = e.b, e.read("MSR")
    mode = b.and_(msr, word(_MODE))
    wide = b.shl(b.lshr(msr, word(63)), word(_SF_SHIFT))
    fetch_key = b.shl(b.lshr(e.read("IAMR"), word(_KEY_SHIFT)), word(_IAMR_SHIFT))
    process = b.shl(e.read("PIDR"), word(_PROCESS_SHIFT))
    return b.or_(b.or_(b.or_(mode, wide), b.or_(fetch_key, process)), word(_USED))


def _choose_pages(e: _Control) -> None:
    """Use the decoded pages of the machine mode; return 0 if there are none."""
    b, msr = e.b, e.read("MSR")
    number = b.or_(b.shl(b.lshr(msr, word(63)), word(1)), b.and_(msr, word(int(MSR.LE))))
    modes = b.inttoptr(e.read("modes"), POINTER)
    mode = e.at(modes, b.mul(number, word(ctypes.sizeof(ModePages))))
    pages = b.load(e.at(mode, ModePages.table.offset), typ=I64)
    with e.elsewhere(e.unlikely(b.icmp_unsigned("==", pages, word(0)), "no_pages")):
        e.write("context_key", word(0))
        b.ret(ir.Constant(I1, 0))
    count = b.load(e.at(mode, ModePages.count.offset), typ=I64)
    e.write("page_table", pages)
    e.write("page_count", b.select(e.any(msr, int(MSR.IR)), word(0), count))
    translated = e.any(msr, int(MSR.DR))
    e.write("data_translation", translated)
    e.write("data_limit", b.select(translated, word(0), b.sub(e.read("memory_size"), word(15))))
    wide_mask, narrow_mask = word(REAL_MODE_MASK), word(0xFFFFFFFF)
    e.write("ea_mask", b.select(e.any(msr, int(MSR.SF)), wide_mask, narrow_mask))


def _make_all_stale(e: _Control) -> None:
    """Have every context of the thread emptied before it is used."""
    contexts = e.b.inttoptr(e.read("contexts"), POINTER)
    with e.each(word(CONTEXTS)) as number:
        context = e.context(contexts, number)
        for k in range(KEYS):
            e.b.store(word(1), e.stale(context, k))


def define_flush(module: ir.Module) -> ir.Function:
    """Define ``flush(state)``: carry out that others asked for all contexts of this thread to be emptied.

    The caller adopts its context anew.
    """
    e = _Control(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_flush")
    e.function.attributes.add("nounwind")
    # Counted first: what is asked for from now on is done next time.
    e.write("flushes_done", e.b.load_atomic(e.field("flushes_asked"), "seq_cst", 8, typ=I64))
    _make_all_stale(e)
    e.b.ret_void()
    return e.function


def define_ask_flush(module: ir.Module) -> ir.Function:
    """Define ``ask_flush(target)``: have another thread empty its contexts before it uses them again."""
    e = _Control(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_ask_flush")
    for counter in ("flushes_asked", "forgotten"):
        e.b.atomic_rmw("add", e.field(counter), word(1), "seq_cst")
    e.b.ret_void()
    return e.function


def _concerns(e: _Control, key: ir.Value, process: ir.Value) -> ir.Value:
    """1 bit: the context with this key has translations of the process. All contexts have process 0's."""
    b = e.b
    whole = b.or_(
        b.icmp_unsigned("==", process, word(ALL_PROCESSES)), b.icmp_unsigned("==", process, word(0))
    )
    return b.or_(whole, b.icmp_unsigned("==", b.lshr(key, word(_PROCESS_SHIFT)), process))


def define_forget_pages(module: ir.Module) -> ir.Function:
    """Define ``forget_pages(target, process, first, last)``: forget a few effective pages of any thread."""
    kind = ir.FunctionType(VOID, [POINTER, I64, I64, I64])
    e = _Control(module, kind, "chronovisor_forget_pages")
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
                e.count_invalidation(tlb)
                with e.each(b.add(b.sub(last, first), word(1))) as distance:
                    page = b.add(first, distance)
                    for kind_of_access in ("load", "store", "fetch"):
                        tag, _data = e.tlb_entry(tlb, kind_of_access, page)
                        with e.if_(b.icmp_unsigned("==", b.load(tag, typ=I64), page)):
                            b.store(word(TLB_INVALID), tag)
    b.ret_void()
    return e.function


def _forget_process(e: _Control, process: ir.Value) -> None:
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
    e = _Control(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_invalidate")
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
def _each_peer(e: _Control) -> Iterator[ir.Value]:
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
    e = _Control(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_synchronize")
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


class _Entry(_Control):
    """The entry of one of several interrupts; which one is known at run time."""

    def statement(self, v: Value) -> None:
        """Do one statement."""
        if v.op == "operand":
            self.values[id(v)] = self.function.args[2]
        else:
            super().statement(v)


_ROWS: dict[str, Row] = {
    **PURE_ROWS,
    "get": lambda e, v: e.read(str(v.detail), v.width),
    "set": lambda e, v, a: e.write("CIA" if v.detail == "NIA" else str(v.detail), a),
}


def define_interrupt(module: ir.Module) -> ir.Function:
    """Define ``interrupt(state, number, cause)``: enter an interrupt at CIA, not behind it.

    1 bit: it was entered, and the caller adopts the new context. It is left to the concrete evaluator, and
    nothing has changed, if CIA is the interrupt's own vector: then the guest can be in a loop.
    """
    kind = ir.FunctionType(I1, [POINTER, I64, I64])
    e = _Entry(module, kind, "chronovisor_interrupt", _ROWS)
    e.function.attributes.add("nounwind")
    b = e.b
    refuse, entered = e.block_named("refuse"), e.block_named("entered")
    came_from = e.read("CIA")
    choice = b.switch(e.function.args[1], refuse)
    for name, number in INTERRUPT_NUMBERS.items():
        interrupt = INTERRUPTS[name]
        if interrupt.hypervisor or interrupt.after:
            continue
        case = e.block_named(name)
        choice.add_case(word(number), case)
        b.position_at_end(case)
        for vector in (interrupt.vector, interrupt.vector + AIL3_OFFSET):
            go_on = e.block_named("elsewhere")
            b.cbranch(b.icmp_unsigned("==", came_from, word(vector)), refuse, go_on)
            b.position_at_end(go_on)
        e.ended = False
        e.block(entry(name).body)
        b.branch(entered)
    b.position_at_end(refuse)
    b.ret(ir.Constant(I1, 0))
    b.position_at_end(entered)
    with e.if_(b.icmp_unsigned("!=", came_from, e.read("latest_vector"))):
        e.write("latest_interrupt", e.function.args[1])
        e.write("latest_address", came_from)
        e.write("latest_dar", e.read("DAR"))
        e.write("latest_vector", e.read("CIA"))
    b.ret(ir.Constant(I1, 1))
    return e.function
