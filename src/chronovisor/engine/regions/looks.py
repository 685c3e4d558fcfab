"""Looks into the TLB: they find the addresses in this process of what a region loads and stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir

from chronovisor.engine.native import finding
from chronovisor.engine.native.emitter import I64, MIDDLE, POINTER, Rows, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.state_layout import finding_field
from chronovisor.engine.regions.accesses import Access, Line, Span
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.exits import Exit, ExitLowering
from chronovisor.isa.values import Value


@dataclass(frozen=True)
class _LastLook:
    """The addresses of what was looked up last: where its page begins, at how many places in that page a span
    may begin, and how far behind effective addresses the page is.
    """

    begin: ir.Value
    room: ir.Value
    distance: ir.Value

    def has(self, b: ir.IRBuilder, ea: ir.Value) -> ir.Value:
        """Whether a span that begins at an effective address is in that page."""
        inside = b.sub(ea, b.load(self.begin, typ=I64))
        return b.icmp_unsigned("<", inside, b.load(self.room, typ=I64))


class LookLowering(ExitLowering):
    """The function of a region's entry in the making, as far as memory is concerned."""

    def __init__(
        self, module: ir.Module, name: str, mode: Mode, rows: Rows, region: Region, entry: int
    ) -> None:
        super().__init__(module, name, mode, rows, region, entry)
        #: The statement in the making; accesses of the block that share a look, and for each span that was
        #: looked up the address in this process at distance 0.
        self._present: Value | None = None
        self._near: Mapping[tuple[int, int], Access] = {}
        self.looked_up: dict[int, ir.Value] = {}
        #: In a tight loop, what was looked up last for each span.
        self._last_looks: dict[int, _LastLook] = {}

    def begin_line(self, line: Line | None) -> None:
        """A straight line of instructions begins. Without one no accesses share a look."""
        self._near, self.looked_up = line.accesses if line is not None else {}, {}

    def statement(self, v: Value) -> None:
        """Do one statement."""
        self._present = v
        super().statement(v)

    def place(self, ea: ir.Value, size: int, store: bool) -> ir.Value:
        """Where ``size`` bytes at an effective address are in this process.

        The first of accesses that are near each other looks the page of all of them up. If the TLB does not
        have it, or if they are in two pages, the instruction's own handler goes on.
        """
        b = self.b
        if not self.sixty_four:
            ea = b.and_(ea, word(0xFFFFFFFF))
        access = self._near.get((self.site.offset, id(self._present)))
        if access is None:
            use = "store" if store else "load"
            return b.inttoptr(b.add(ea, self._page_of(ea, size, use, store, None)), POINTER)
        span = access.span
        moved = self.looked_up.get(id(span))
        if moved is None:
            lowest = b.add(ea, word(span.low - access.distance))
            moved = self._page_of(lowest, span.size, span.use, store, span)
            self.looked_up[id(span)] = moved
        return b.inttoptr(b.add(ea, moved), POINTER)

    def _page_of(self, ea: ir.Value, size: int, use: str, store: bool, span: Span | None) -> ir.Value:
        """How far behind effective addresses the places of some bytes are, which may be those of a span.

        In a tight loop they often lie in the same page as the last time. No thread relies on what this one
        looks up until its piece of the run ends, and the function with it: see `define_await_piece`.
        """
        if not self.is_in_loop:
            return self._look_up(ea, size, use, store)
        b = self.b
        last = self._last_look(span)
        known = self.block_named("known")
        another = self.unlikely(b.not_(last.has(b, ea)), "another")
        b.branch(known)
        with self.elsewhere(another):
            b.store(self._look_up(ea, size, use, store), last.distance)
            b.store(b.and_(ea, word(-(1 << PAGE_SHIFT))), last.begin)
            b.store(word(self._room(size)), last.room)
            b.branch(known)
        b.position_at_end(known)
        return b.load(last.distance, typ=I64)

    def look_up_in_advance(self, span: Span, ea: ir.Value, absent: ir.Block) -> ir.Value:
        """How far behind effective addresses the places of a span are that begins at ``ea`` now.

        No access is made yet, so this leaves the tables of pages alone: if neither the page's first entry in
        the TLB nor the last look has it, control goes to ``absent``.
        """
        b = self.b
        other, data = self._first_entry(ea, span.size, span.use)
        elsewhere, found = self.unlikely(other, "elsewhere"), self.block_named("found")
        distance, usual = b.load(data, typ=I64), b.block
        b.branch(found)
        with self.elsewhere(elsewhere):
            last = self._last_look(span)
            before = b.load(last.distance, typ=I64)
            b.cbranch(last.has(b, ea), found, absent)
        b.position_at_end(found)
        either = b.phi(I64)
        either.add_incoming(distance, usual)
        either.add_incoming(before, elsewhere)
        return either

    def _last_look(self, span: Span | None) -> _LastLook:
        """What was looked up last for a span."""
        last = self._last_looks.get(id(span)) if span is not None else None
        if last is None:
            b = self.b
            with b.goto_entry_block():
                last = _LastLook(*(b.alloca(I64) for _ in range(3)))
                b.store(word(0), last.room)
            if span is not None:
                self._last_looks[id(span)] = last
        return last

    @staticmethod
    def _room(size: int) -> int:
        """At how many places in a page so many bytes may begin."""
        return (1 << PAGE_SHIFT) - size + 1

    def _look_up(self, ea: ir.Value, size: int, use: str, store: bool) -> ir.Value:
        """How far behind effective addresses the places of some bytes are, for a use.

        ``store`` says whether the access that is being made is a store.
        """
        b = self.b
        other, data = self._first_entry(ea, size, use)
        absent = self.unlikely(other, "absent")
        found = self.block_named("found")
        distance, usual = b.load(data, typ=I64), b.block
        b.branch(found)
        with self.elsewhere(absent):
            other = self._find(ea, size, use, store)
            nowhere = self.unlikely(b.icmp_unsigned("==", other, word(finding.NOT_FOUND)), "nowhere")
            rare = b.block
            b.branch(found)
            b.position_at_end(nowhere)
            record = self._record(self.site.offset)
            address = self.address() if record is None else None
            self._exit(Exit.ABSENT, self.known.done, address=address, record=record)
        b.position_at_end(found)
        either = b.phi(I64)
        either.add_incoming(distance, usual)
        either.add_incoming(other, rare)
        return either

    def _first_entry(self, ea: ir.Value, size: int, use: str) -> tuple[ir.Value, ir.Value]:
        """Whether the first entry in the TLB for some bytes has another page than theirs, or they are in two
        pages; and the address of their distance in that entry.
        """
        b = self.b
        last = b.lshr(b.add(ea, word(size - 1)), word(PAGE_SHIFT))
        tag, data = self.tlb_entry_at(self.present_tlb(), use, ea)
        return b.icmp_unsigned("!=", b.load(tag, typ=I64), last), data

    def _find(self, ea: ir.Value, size: int, use: str, store: bool) -> ir.Value:
        """Have a page found that is not in the first entry of its place."""
        field = self.field(finding_field(use, "store" if store else "load"))
        function = self.b.load(field, typ=finding.FIND_POINTER)
        arguments = [self.at(self.state, MIDDLE), self.present_tlb(), ea, word(size)]
        return self.b.call(function, arguments, cconv=finding.CONVENTION)
