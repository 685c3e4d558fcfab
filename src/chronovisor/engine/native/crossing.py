"""An access that lies in two pages: the function ``cross``, which does one instruction with such an access.

The TLB's entry for the first page leads to a copy of the bytes meanwhile. Handlers compare an entry's tag
with the page of the last byte, so with that page's number as the tag the entry serves this access alone. If
the instruction makes other accesses too, it may not find their page; then the concrete evaluator does it.
"""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    HANDLER_POINTER,
    I1,
    I64,
    POINTER,
    VOID,
    ThreadEmitter,
    word,
)
from chronovisor.engine.native.layout import DATA_USES, PAGE_SHIFT, RECORD_HANDLER, TLB_INVALID, Left

#: ``cross(state)``: a `Left`.
CROSS = ir.FunctionType(I64, [POINTER])


def define_cross(module: ir.Module, store: bool) -> ir.Function:
    """Define ``cross_load`` or ``cross_store``: do the instruction at CIA, one of whose accesses is missing.

    The state describes the access. The TLB has both of its pages. ``begin`` and ``budget`` say whether the
    instruction was executed. What a store's instruction stores is in memory on return.
    """
    return _Cross(module, store).function


class _Cross(ThreadEmitter):
    def __init__(self, module: ir.Module, store: bool) -> None:
        self.kind = "store" if store else "load"
        super().__init__(module, CROSS, f"chronovisor_cross_{self.kind}")
        b = self.b
        self.size = self.read("missing_size")
        self.buffer = self.field("crossing")
        ea = self.read("missing_address")
        inside = b.and_(ea, word((1 << PAGE_SHIFT) - 1))
        #: How many bytes lie in the first page.
        self.first = b.sub(word(1 << PAGE_SHIFT), inside)
        self.tlb = self.present_tlb()
        page = b.lshr(ea, word(PAGE_SHIFT))
        tag, data = self.tlb_entry(self.tlb, self.kind, page)
        tags = [self.tlb_entry(self.tlb, use, page)[0] for use in DATA_USES]
        begin = b.and_(b.add(ea, self.first), self.addresses())
        _, next_data = self.tlb_entry(self.tlb, self.kind, b.lshr(begin, word(PAGE_SHIFT)))
        with self.moving(self.tlb):
            kept, before = b.load(data, typ=I64), [b.load(one, typ=I64) for one in tags]
            self.places = (
                b.inttoptr(b.add(ea, kept), POINTER),
                b.inttoptr(b.add(begin, b.load(next_data, typ=I64)), POINTER),
            )
            self._copy(to_memory=False)
            for one in tags:
                b.store(word(TLB_INVALID), one)
            b.store(b.sub(b.ptrtoint(self.buffer, I64), ea), data)
            b.store(b.lshr(b.add(ea, b.sub(self.size, word(1))), word(PAGE_SHIFT)), tag)

            why = self._execute()

            if store:
                with self.if_(b.icmp_unsigned("!=", self.read("begin"), self.read("budget"))):
                    self._copy(to_memory=True)
            b.store(word(TLB_INVALID), tag)
            b.store(kept, data)
            for one, number in zip(tags, before, strict=True):
                b.store(number, one)
        b.ret(why)

    def _copy(self, to_memory: bool) -> None:
        """Copy the bytes of the access between memory and the buffer."""
        b = self.b
        copy = ir.FunctionType(VOID, [POINTER, POINTER, I64, I1])
        memcpy = self.function.module.declare_intrinsic("llvm.memcpy", [POINTER, POINTER, I64], copy)
        for place, copied, count in (
            (self.places[0], self.buffer, self.first),
            (self.places[1], self.at(self.buffer, self.first), b.sub(self.size, self.first)),
        ):
            target, source = (place, copied) if to_memory else (copied, place)
            b.call(memcpy, [target, source, count, ir.Constant(I1, 0)])

    def _execute(self) -> ir.Value:
        """Have the instruction's handler execute it alone; why the handler came back."""
        b = self.b
        self.write("begin", word(1))
        self.write("last_piece", word(1))
        record, absent = self.record_at(self.read("CIA"))
        handler = b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER)
        why = self.call_handler(handler, record, word(1))
        undone = b.icmp_unsigned("==", self.read("begin"), self.read("budget"))
        missing = b.or_(*(b.icmp_unsigned("==", why, word(left)) for left in _MISSING))
        again = b.and_(undone, missing)
        answer, done = b.select(again, word(Left.SLOW), why), self.block_named("executed")
        end = b.block
        b.branch(done)
        b.position_at_end(absent)
        self.write("budget", word(1))
        b.branch(done)
        b.position_at_end(done)
        found = b.phi(I64)
        found.add_incoming(answer, end)
        found.add_incoming(word(Left.SLOW), absent)
        return found


_MISSING = (Left.MISSING_LOAD, Left.MISSING_STORE)
