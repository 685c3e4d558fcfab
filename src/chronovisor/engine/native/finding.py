"""Finding a page of data that is not where regions look first: ``find(middle, tlb, ea, size)``.

There are several kinds. The answer is how far behind effective addresses the places of the bytes are, as an
entry of the TLB says, or NOT_FOUND. Regions go on after that, so these functions preserve all registers. They
enter no interrupt: if the page cannot be had, nothing has happened, and the instruction's own handler finds
out why. The thread's state comes as handlers have it (MIDDLE): so a region keeps no second address of it.
"""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I64, MIDDLE, POINTER, VOID, ThreadEmitter, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.state_layout import finding_field
from chronovisor.engine.native.target_processor import target_processor
from chronovisor.isa.radix import Access

FIND: Final = ir.FunctionType(I64, [POINTER, POINTER, I64, I64])
FIND_POINTER: Final = ir.PointerType(FIND)
CONVENTION: Final = "preserve_allcc"
#: No distance: these are multiples of the size of a page.
NOT_FOUND: Final = 1


def define_bring(module: ir.Module, walk: ir.Function) -> ir.Function:
    """Define ``bring(state, ea)``: walk, and preserve all registers."""
    kind = ir.FunctionType(VOID, [POINTER, I64])
    e = ThreadEmitter(module, kind, f"{walk.name}_preserving")
    e.function.calling_convention = CONVENTION
    # LLVM would clear the upper halves of the vector registers after they were restored. llvmlite's own
    # way to add attributes does not know this one.
    _, features = target_processor()
    set.add(e.function.attributes, f'"target-features"="{features},-vzeroupper"')
    for attribute in ("nounwind", "noinline"):
        e.function.attributes.add(attribute)
    e.b.call(walk, e.function.args)
    e.b.ret_void()
    return e.function


def define_find(module: ir.Module, use: str, access: Access, bring: ir.Function) -> ir.Function:
    """Define the function that finds a page for a use, while an instruction makes an access.

    ``bring`` has a page in its first entry, for that access. It may record nothing but the access that is
    made, so a load does not bring a page that is wanted for loads and stores alike.
    """
    return _Find(module, use, access, bring).function


class _Find(ThreadEmitter):
    def __init__(self, module: ir.Module, use: str, access: Access, bring: ir.Function) -> None:
        super().__init__(module, FIND, f"chronovisor_{finding_field(use, access.value)}")
        self.function.calling_convention = CONVENTION
        self.function.attributes.add("nounwind")
        b, (middle, tlb, ea, size) = self.b, self.function.args
        self.state = self.at(middle, -MIDDLE)
        page = b.lshr(ea, word(PAGE_SHIFT))
        last = b.lshr(b.add(ea, b.sub(size, word(1))), word(PAGE_SHIFT))
        first, second = (self.tlb_entry(tlb, use, page, way) for way in range(2))
        beside = self.tlb_entry(tlb, use, last)

        self._answer_if(self._is_of(second, last), second)
        one, two = self.block_named("one"), self.block_named("two")
        b.cbranch(b.icmp_unsigned("==", page, last), one, two)

        b.position_at_end(two)
        # Guests have larger pages than the TLB: two that lie beside each other in memory too are one.
        both = b.and_(self._is_of(first, page), self._is_of(beside, last))
        distances = (b.load(entry[1], typ=I64) for entry in (first, beside))
        self._answer_if(b.and_(both, b.icmp_unsigned("==", *distances)), first)
        b.ret(word(NOT_FOUND))

        b.position_at_end(one)
        if access is Access.STORE or use == "load":
            b.call(bring, [self.state, ea], cconv=CONVENTION)
            # A page that may be stored to may be closed to loads.
            self._answer_if(self._is_of(first, page), first)
        b.ret(word(NOT_FOUND))

    def _is_of(self, entry: tuple[ir.Value, ir.Value], page: ir.Value) -> ir.Value:
        return self.b.icmp_unsigned("==", self.b.load(entry[0], typ=I64), page)

    def _answer_if(self, condition: ir.Value, entry: tuple[ir.Value, ir.Value]) -> None:
        b, found, on = self.b, self.block_named("found"), self.block_named("on")
        b.cbranch(condition, found, on)
        b.position_at_end(found)
        b.ret(b.load(entry[1], typ=I64))
        b.position_at_end(on)
