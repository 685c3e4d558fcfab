"""Taking a sample in native code, which also has lines put together for the sampled block and some beside.

Most samples tell nothing new: their block has a line but no region, and a region of their page is being made
already. Those are only counted. Python takes the others.
"""

from __future__ import annotations

import ctypes

from llvmlite import ir

from chronovisor.engine.native.contexts import mode_pages
from chronovisor.engine.native.emitter import I1, I8, I32, I64, POINTER, VOID, Emitter, ThreadEmitter, word
from chronovisor.engine.native.layout import (
    PAGE_BLOCKS,
    PAGE_INSTRUCTIONS,
    PAGE_SHIFT,
    PLAIN_AT,
    RECORD_HANDLER,
    RECORD_SIZE,
    Decoding,
    Lines,
    ModePages,
    PageNote,
)
from chronovisor.engine.native.state_layout import SAMPLES, Sample
from chronovisor.engine.state import CACHE_BLOCK

#: How many blocks before the sampled one, and behind it, get lines with it, as far as they are decoded. Much
#: code is executed seldom, but mostly with what lies beside it.
_BEFORE, _BEHIND = 3, 6

_BLOCK_SHIFT = CACHE_BLOCK.bit_length() - 1


def _part(e: Emitter, base: ir.Value, kind: type[ctypes.Structure], name: str) -> ir.Value:
    """A field of 64 bits."""
    return e.b.load(e.at(base, getattr(kind, name).offset), typ=I64)


def page_note(e: Emitter, lines: ir.Value, page: ir.Value) -> ir.Value:
    """The address of a page's note: a `PageNote`."""
    notes = e.b.inttoptr(_part(e, lines, Lines, "notes"), POINTER)
    return e.at(notes, e.b.mul(page, word(ctypes.sizeof(PageNote))))


def define_put_line(module: ir.Module, undecoded: ir.Function, assemble: ir.Function) -> ir.Function:
    """Define ``put_line(lines, records, page, block)``: put a line together for a block of a page.

    It does nothing if the block has one, if the block is not decoded or if there is no room. The caller has
    the lock of the mode's records.
    """
    kind = ir.FunctionType(VOID, [POINTER, POINTER, I64, I64])
    e = Emitter(ir.Function(module, kind, "chronovisor_put_line"), {})
    b, (lines, records, page, block) = e.b, e.function.args
    has_line = e.at(page_note(e, lines, page), PageNote.lines.offset)
    present, bit = b.load(has_line, typ=I32), b.trunc(b.shl(word(1), block), I32)
    record = e.at(records, b.mul(block, word(CACHE_BLOCK // 4 * RECORD_SIZE)))
    handler = b.load(e.at(record, RECORD_HANDLER), typ=I64)
    out = _part(e, lines, Lines, "next")
    wanted = ir.Constant(I1, 1)
    for condition in (
        b.icmp_unsigned("==", b.and_(present, bit), ir.Constant(I32, 0)),
        b.icmp_unsigned("!=", handler, b.ptrtoint(undecoded, I64)),
        b.icmp_unsigned("<=", out, _part(e, lines, Lines, "last")),
    ):
        wanted = b.and_(wanted, condition)
    with e.if_(wanted):
        book = b.inttoptr(_part(e, lines, Lines, "book"), POINTER)
        behind = b.call(assemble, [book, record, b.inttoptr(out, POINTER)])
        b.store(behind, e.at(lines, Lines.next.offset))
        b.store(b.or_(present, bit), has_line)
        in_chunk = b.inttoptr(_part(e, lines, Lines, "in_chunk"), POINTER)
        b.store(ir.Constant(I8, 1), e.at(in_chunk, page))
    b.ret_void()
    return e.function


def define_sample(module: ir.Module, put_line: ir.Function) -> ir.Function:
    """Define ``sample(state)``: take a sample of the code that a thread executes."""
    return _Sample(module, put_line).function


class _Sample(ThreadEmitter):
    def __init__(self, module: ir.Module, put_line: ir.Function) -> None:
        super().__init__(module, ir.FunctionType(VOID, [POINTER]), "chronovisor_sample")
        b, mode = self.b, mode_pages(self)
        entry = self.read("page_entry")
        page = b.lshr(b.sub(entry, self.read("page_table")), word(3))
        records = b.load(b.inttoptr(entry, POINTER), typ=I64)
        beyond = b.icmp_unsigned(">=", page, _part(self, mode, ModePages, "count"))
        gone = b.or_(beyond, b.icmp_unsigned("==", records, word(0)))
        with self.elsewhere(self.unlikely(gone, "gone")):
            b.ret_void()
        executed = self._executed(b.inttoptr(records, POINTER))

        lines = b.inttoptr(_part(self, mode, ModePages, "lines"), POINTER)
        note = page_note(self, lines, page)
        has_line = self.at(note, PageNote.lines.offset)
        block = b.lshr(executed, word(_BLOCK_SHIFT))
        bit = b.trunc(b.shl(word(1), block), I32)
        none = ir.Constant(I32, 0)
        with self.if_(b.icmp_unsigned("==", b.and_(b.load(has_line, typ=I32), bit), none)):
            self._put_line(put_line, mode, lines, page, block)
        quiet = b.and_(b.load(self.at(note, PageNote.quiet.offset), typ=I32), b.load(has_line, typ=I32))
        is_told = b.icmp_unsigned("!=", b.and_(quiet, bit), none)
        with self.if_(is_told):
            # No lock: if another thread counts at the same moment, one sample is lost.
            for counter in (self.at(note, PageNote.samples.offset), self.field("samples_counted")):
                b.store(b.add(b.load(counter, typ=I64), word(1)), counter)
        with self.if_(b.not_(is_told)):
            self._keep(executed)
        b.ret_void()

    def _executed(self, records: ir.Value) -> ir.Value:
        """The offset of code that handlers executed; the function ends if nothing tells.

        If the thread left the page, or came to a region, handlers had executed what was before.
        """
        b, size = self.b, word(RECORD_SIZE)
        present = b.sub(self.read("CIA"), self.read("page_base"))
        begin = b.sub(self.read("handlers_from"), b.ptrtoint(records, I64))
        within = b.icmp_unsigned("<", begin, b.mul(size, word(PAGE_INSTRUCTIONS)))
        before = b.select(within, b.shl(b.udiv(begin, size), word(2)), word(0))
        left = b.icmp_unsigned(">=", present, word(1 << PAGE_SHIFT))
        inside = b.select(left, word(0), present)
        other = b.or_(left, self._begins_region(records, inside))
        unknown = b.or_(b.not_(within), self._begins_region(records, before))
        with self.elsewhere(self.unlikely(b.and_(other, unknown), "unknown")):
            b.ret_void()
        return b.select(other, before, inside)

    def _begins_region(self, records: ir.Value, offset: ir.Value) -> ir.Value:
        b = self.b
        plain = b.load(self.at(self.at(records, PLAIN_AT), b.shl(offset, word(1))), typ=I64)
        return b.icmp_unsigned("!=", plain, word(0))

    def _put_line(
        self, put_line: ir.Function, mode: ir.Value, lines: ir.Value, page: ir.Value, block: ir.Value
    ) -> None:
        """Put lines together for the block and those beside it, if no other thread changes records.

        If one does, another sample may come.
        """
        b = self.b
        decoding = b.inttoptr(_part(self, mode, ModePages, "decoding"), POINTER)
        lock = self.at(decoding, Decoding.lock.offset)
        with self.if_(b.extract_value(b.cmpxchg(lock, word(0), word(1), "seq_cst", "seq_cst"), 1)):
            # Others may have taken the page's records away: then there are no blocks.
            records = b.load(b.inttoptr(self.read("page_entry"), POINTER), typ=I64)
            there = b.icmp_unsigned("!=", records, word(0))
            with self.each(b.select(there, word(_BEFORE + 1 + _BEHIND), word(0))) as number:
                one = b.add(b.sub(block, word(_BEFORE)), number)
                with self.if_(b.icmp_unsigned("<", one, word(PAGE_BLOCKS))):
                    b.call(put_line, [lines, b.inttoptr(records, POINTER), page, one])
            b.fence("release")
            b.store(word(0), lock)

    def _keep(self, executed: ir.Value) -> None:
        """Leave the sample to Python."""
        b, count, size = self.b, self.read("sample_count"), word(ctypes.sizeof(Sample))
        place = self.at(self.field("samples"), b.mul(b.and_(count, word(SAMPLES - 1)), size))
        named = {"entry": "page_entry", "base": "page_base", "tlb": "tlb", "handlers_from": "handlers_from"}
        values = {part: self.read(name) for part, name in named.items()} | {"offset": executed}
        for part, value in values.items():
            b.store(value, self.at(place, getattr(Sample, part).offset))
        self.write("sample_count", b.add(count, word(1)))
