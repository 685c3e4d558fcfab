"""Decoding without Python: the function ``decode``, which makes the records that a thread lacks."""

from __future__ import annotations

import ctypes

from llvmlite import ir

from chronovisor.engine.native.block_decoder import DONE, DONE_EARLY
from chronovisor.engine.native.contexts import mode_pages
from chronovisor.engine.native.emitter import I1, I8, I32, I64, POINTER, ThreadEmitter, word
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_SIZE,
    Decoding,
    ModePages,
    PageNote,
)
from chronovisor.engine.native.sampling import page_note
from chronovisor.engine.state import CACHE_BLOCK

_BLOCK_SHIFT = CACHE_BLOCK.bit_length() - 1


def define_decode(
    module: ir.Module, undecoded: ir.Function, decode_block: ir.Function, put_line: ir.Function
) -> ir.Function:
    """Define ``decode(state)``: decode the block at CIA, in the page that is being executed.

    1 bit: the thread can go on. If not, Python decodes: there is a word that native code does not know yet,
    or another thread is changing records.
    """
    return _Decode(module, undecoded, decode_block, put_line).function


class _Decode(ThreadEmitter):
    def __init__(
        self, module: ir.Module, undecoded: ir.Function, decode_block: ir.Function, put_line: ir.Function
    ) -> None:
        super().__init__(module, ir.FunctionType(I1, [POINTER]), "chronovisor_decode")
        b, mode = self.b, mode_pages(self)
        self.decoding = b.inttoptr(self._part(mode, ModePages, "decoding"), POINTER)
        lock = self.at(self.decoding, Decoding.lock.offset)
        taken = b.extract_value(b.cmpxchg(lock, word(0), word(1), "seq_cst", "seq_cst"), 1)
        with self.elsewhere(self.unlikely(b.not_(taken), "busy")):
            b.ret(ir.Constant(I1, 0))

        entry = self.read("page_entry")
        page = b.lshr(b.sub(entry, self.read("page_table")), word(3))
        records = b.load(b.inttoptr(entry, POINTER), typ=I64)
        slots = self._part(self.decoding, Decoding, "slots")
        none = b.or_(b.icmp_unsigned("==", records, word(0)), b.icmp_unsigned("==", slots, word(0)))
        with self.elsewhere(self.unlikely(none, "none")):
            self._return(0)
        offset = b.sub(self.read("CIA"), self.read("page_base"))
        inside = b.and_(offset, word((1 << PAGE_SHIFT) - CACHE_BLOCK))
        place = b.mul(b.lshr(inside, word(2)), word(RECORD_SIZE))
        record = self.at(b.inttoptr(records, POINTER), place)
        handler = b.load(self.at(record, RECORD_HANDLER), typ=I64)
        known = b.icmp_unsigned("!=", handler, b.ptrtoint(undecoded, I64))
        with self.elsewhere(self.unlikely(known, "known")):
            self._return(1)

        start = b.or_(b.shl(page, word(PAGE_SHIFT)), inside)
        blocks = b.inttoptr(self.read("code_blocks"), POINTER)
        b.store(ir.Constant(I8, 1), self.at(blocks, b.lshr(start, word(_BLOCK_SHIFT))))
        # Before memory is read: a thread that stores here and then finds no mark knows that its store will be
        # read.
        b.fence("seq_cst")
        table = b.inttoptr(self._part(self.decoding, Decoding, "significant"), POINTER)
        count, swapped = (self._part(self.decoding, Decoding, n) for n in ("slot_count", "swapped"))
        source = self.at(b.inttoptr(self.read("memory_at"), POINTER), start)
        arguments = [table, b.inttoptr(slots, POINTER), count, record, source, swapped, inside]
        left = b.call(decode_block, arguments)
        early = b.icmp_unsigned("==", left, word(DONE_EARLY))
        unknown = b.and_(b.icmp_unsigned("!=", left, word(DONE)), b.not_(early))
        with self.elsewhere(self.unlikely(unknown, "unknown")):
            self._return(0)
        incomplete = b.icmp_unsigned("==", self._part(self.decoding, Decoding, "complete"), word(0))
        with self.if_(b.or_(early, incomplete)):
            pages = b.inttoptr(self._part(mode, ModePages, "early"), POINTER)
            b.store(ir.Constant(I8, 1), self.at(pages, page))
        lines = b.inttoptr(self._part(mode, ModePages, "lines"), POINTER)
        present = b.load(self.at(page_note(self, lines, page), PageNote.lines.offset), typ=I32)
        # A page that has lines was sampled. So it is executed more than once.
        with self.if_(b.icmp_unsigned("!=", present, ir.Constant(I32, 0))):
            block = b.lshr(inside, word(_BLOCK_SHIFT))
            b.call(put_line, [lines, b.inttoptr(records, POINTER), page, block])
        self._return(1)

    def _part(self, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
        return self.b.load(self.at(base, getattr(kind, name).offset), typ=I64)

    def _return(self, goes_on: int) -> None:
        """Release the lock and return."""
        self.b.fence("release")
        self.b.store(word(0), self.at(self.decoding, Decoding.lock.offset))
        self.b.ret(ir.Constant(I1, goes_on))
