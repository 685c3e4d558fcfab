"""Contexts of translation in native code.

A *context* is the state of the registers that translation depends on. ``adopt(state)`` has the thread use
the context that its registers name. ``flush(state)`` empties all contexts of the thread;
``ask_flush(target)`` has another thread do so.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I8, I64, POINTER, VOID, ThreadEmitter, word
from chronovisor.engine.native.layout import CONTEXTS, TLB_ENTRIES, TLB_GROUP, ModePages, ThreadContext, Tlb
from chronovisor.engine.native.state_layout import KEYS
from chronovisor.engine.state import REAL_MODE_MASK
from chronovisor.isa.bits import MSR
from chronovisor.isa.radix import KEY_SHIFT

#: The states of MSR in which the concrete evaluator runs the guest.
STEPPED: Final = int(MSR.SE | MSR.BE)

_MODE: Final = int(MSR.PR | MSR.IR | MSR.DR | MSR.LE)
_USED: Final = 1 << 2
_SF_SHIFT, _IAMR_SHIFT, PROCESS_SHIFT = 1, 16, 32
_HASH: Final = 0x9E37_79B9_7F4A_7C15
"""2^64 divided by the golden ratio: products with it are spread evenly in their upper bits."""


class ContextEmitter(ThreadEmitter):
    """A function that reaches the contexts and TLBs of a thread."""

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
        """Forget everything that a TLB has. Most guests have filled little of it since the last time."""
        self.count_invalidation(tlb)
        self._empty_groups(tlb, Tlb.empty_data.offset, Tlb.of_data)
        self._empty_groups(tlb, Tlb.empty_code.offset, Tlb.of_code)

    def _empty_groups(self, tlb: ir.Value, known: int, entries: ctypes._CField[Any, Any, Any]) -> None:
        """Empty those groups of entries that the bits at the offset ``known`` do not say to be empty."""
        b = self.b
        fill = self.function.module.declare_intrinsic("llvm.memset", [POINTER, I64])
        size = entries.size // TLB_ENTRIES * TLB_GROUP
        field, before = self.at(tlb, known), self.b.block
        filled = b.not_(b.load(field, typ=I64))
        loop, group, done = (self.block_named(n) for n in ("groups", "group", "emptied"))
        b.branch(loop)
        b.position_at_end(loop)
        left = b.phi(I64)
        left.add_incoming(filled, before)
        b.cbranch(b.icmp_unsigned("!=", left, word(0)), group, done)
        b.position_at_end(group)
        number = b.cttz(left, ir.Constant(I1, 1))
        place = self.at(self.at(tlb, entries.offset), b.mul(number, word(size)))
        b.call(fill, [place, ir.Constant(I8, 0xFF), word(size), ir.Constant(I1, 0)])
        left.add_incoming(b.and_(left, b.sub(left, word(1))), b.block)
        b.branch(loop)
        b.position_at_end(done)
        b.store(word(-1), field)


def define_adopt(module: ir.Module) -> ir.Function:
    """Define ``adopt(state)``: take over the registers that say how instructions and data are reached.

    1 bit: native code can run the thread as it is now. If not, nothing has changed.
    """
    e = ContextEmitter(module, ir.FunctionType(I1, [POINTER]), "chronovisor_adopt")
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
    key_0 = b.lshr(e.read("AMR"), word(KEY_SHIFT))
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


def _context_key(e: ContextEmitter) -> ir.Value:
    """The registers that a context depends on, but for AMR and PATE1, in one number."""
    b, msr = e.b, e.read("MSR")
    mode = b.and_(msr, word(_MODE))
    wide = b.shl(b.lshr(msr, word(63)), word(_SF_SHIFT))
    fetch_key = b.shl(b.lshr(e.read("IAMR"), word(KEY_SHIFT)), word(_IAMR_SHIFT))
    process = b.shl(e.read("PIDR"), word(PROCESS_SHIFT))
    return b.or_(b.or_(b.or_(mode, wide), b.or_(fetch_key, process)), word(_USED))


def mode_pages(e: ThreadEmitter) -> ir.Value:
    """The address of the `ModePages` of the thread's machine mode."""
    b, msr = e.b, e.read("MSR")
    number = b.or_(b.shl(b.lshr(msr, word(63)), word(1)), b.and_(msr, word(int(MSR.LE))))
    return e.at(b.inttoptr(e.read("modes"), POINTER), b.mul(number, word(ctypes.sizeof(ModePages))))


def _choose_pages(e: ContextEmitter) -> None:
    """Use the decoded pages of the machine mode. If the mode has no pages, end the function with 0."""
    b, msr = e.b, e.read("MSR")
    mode = mode_pages(e)
    pages = b.load(e.at(mode, ModePages.table.offset), typ=I64)
    with e.elsewhere(e.unlikely(b.icmp_unsigned("==", pages, word(0)), "no_pages")):
        e.write("context_key", word(0))
        b.ret(ir.Constant(I1, 0))
    count = b.load(e.at(mode, ModePages.count.offset), typ=I64)
    e.write("page_table", pages)
    e.write("page_count", b.select(e.any(msr, int(MSR.IR)), word(0), count))
    e.write("data_translation", e.any(msr, int(MSR.DR)))
    wide_mask, narrow_mask = word(REAL_MODE_MASK), word(0xFFFFFFFF)
    e.write("ea_mask", b.select(e.any(msr, int(MSR.SF)), wide_mask, narrow_mask))


def _make_all_stale(e: ContextEmitter) -> None:
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
    e = ContextEmitter(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_flush")
    e.function.attributes.add("nounwind")
    # Counted first: what is asked for from now on is done next time.
    e.write("flushes_done", e.b.load_atomic(e.field("flushes_asked"), "seq_cst", 8, typ=I64))
    _make_all_stale(e)
    e.b.ret_void()
    return e.function


def define_ask_flush(module: ir.Module) -> ir.Function:
    """Define ``ask_flush(target)``: have another thread empty its contexts before it uses them again."""
    e = ContextEmitter(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_ask_flush")
    for counter in ("flushes_asked", "forgotten"):
        e.b.atomic_rmw("add", e.field(counter), word(1), "seq_cst")
    e.b.ret_void()
    return e.function
