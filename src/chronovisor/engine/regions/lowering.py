"""A region as LLVM functions, one for each entry: handlers that take instructions' places in records.

A function does the instructions from its entry on, until control comes to an instruction that the function of
another entry does. The state is exact whenever anything else looks at it: see `registers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from llvmlite import ir

from chronovisor.engine.native import finding
from chronovisor.engine.native.emitter import HANDLER_POINTER, I1, I64, POINTER, Rows, word
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_SIZE,
    Left,
    finding_field,
)
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions import accesses
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.registers import Known, RegisterLowering
from chronovisor.isa.values import Block, Value, When


class _Way(Enum):
    """How the region is left."""

    LEAVE = "return to `enter`, with CIA at an address"
    JUMP = "go on at an address"
    PLAIN = "the same, by the instruction's own handler although a region begins there"
    PIECE_END = "return to `enter` if that begins another piece, else PLAIN"


class Exit(Enum):
    """Why the region is left; which way follows from that."""

    UNDONE = "an instruction is left undone"
    DONE = "an instruction is done and hands the thread back"
    OUTSIDE = "control goes on outside the region"
    REGISTER = "a register says where control goes on"
    SPENT = "the budget may not last to the next entry"
    ELSEWHERE = "a page of the region that control comes to is mapped in another way"
    ABSENT = "the TLB does not have the page of an access, or it is in two pages"
    UNDECODED = "control goes on in a page that has no records"


_WAYS = {
    Exit.UNDONE: _Way.LEAVE,
    Exit.DONE: _Way.LEAVE,
    Exit.OUTSIDE: _Way.JUMP,
    Exit.REGISTER: _Way.JUMP,
    Exit.SPENT: _Way.PIECE_END,
    Exit.ELSEWHERE: _Way.JUMP,
    Exit.ABSENT: _Way.PLAIN,
}
"""The way of each exit but UNDECODED, which is found out on the ways that go on."""


def entry_symbol(number: int) -> str:
    """The name of the handler with which the region's entry of this number is entered."""
    return f"chronovisor_region_{number}"


def define_region(module: ir.Module, mode: Mode, rows: Rows, region: Region) -> None:
    """Define the functions of a region."""
    functions: dict[int, ir.Function] = {}
    made = [
        EntryLowering(module, entry_symbol(number), mode, rows, region, entry, functions)
        for number, entry in enumerate(region.entries)
    ]
    functions |= {one.entry: one.function for one in made}
    for one in made:
        one.define()


def _record_offset(offset: int) -> int:
    """How far behind the records of its page an instruction's record is, in bytes."""
    return offset // 4 * RECORD_SIZE


def _direct(block: Block) -> Iterator[Value]:
    """The statements of a block that are done whenever the block is."""
    return (s for s in block if not isinstance(s, When))


class EntryLowering(RegisterLowering):
    """The function of a region's entry in the making. It is the handler of the entry's instruction.

    ``functions`` has that of each entry of the region.
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        mode: Mode,
        rows: Rows,
        region: Region,
        entry: int,
        functions: Mapping[int, ir.Function],
    ) -> None:
        super().__init__(module, name, mode, rows, region.part(entry), region.loops.get(entry, frozenset()))
        self.region, self.entry, self.functions = region, entry, functions
        b = self.b
        self.budget_at, self.tlb_at = b.alloca(I64), b.alloca(POINTER)
        b.store(self.budget, self.budget_at)
        b.store(self.tlb, self.tlb_at)
        self.exit = {part: b.alloca(I64) for part in ("why", "address", "budget")}
        self.exit["record"] = b.alloca(POINTER)
        self._undecoded: ir.Block | None = None
        #: The ends that exits share, and those of the tight loop. A jump is each exit's own: a processor
        #: predicts it better than one that goes to wherever any of them does.
        self._ways: dict[tuple[bool, _Way], ir.Block] = {}
        sides = self._sides()
        self.blocks = {o: self.block_named(f"at_{o:x}") for o in self.sites if o in sides}
        #: The blocks that control comes to from two sides: what is known on one of them is not used there.
        self._joins = {o for o, count in sides.items() if count > 1}
        #: The blocks that are still to be made, with what is known there.
        self._todo: list[tuple[int, Known]] = []
        #: The instruction in the making.
        self.site = self.sites[entry]
        #: The statement in the making; accesses of the block that share a look into the TLB, and for each
        #: span that was looked up the address in this process at distance 0.
        self._present: Value | None = None
        self._near: Mapping[tuple[int, int], accesses.Access] = {}
        self._looked_up: dict[int, ir.Value] = {}

    def _sides(self) -> dict[int, int]:
        """From how many sides control comes to each instruction that begins a block: not to those that only
        follow the one before.
        """
        found = {self.entry: 1}
        for offset in self.sites:
            for following in self.region.following[offset]:
                if following in self.sites:
                    found[following] = found.get(following, 0) + 1
        for offset in self.sites:
            before = self.sites.get(offset - 4)
            follows = before is not None and before.falls and found.get(offset) == 1
            if follows and not self._begins(offset):
                del found[offset]
        return found

    def _begins(self, offset: int) -> bool:
        """Whether a block begins at an instruction although control comes from the one before alone."""
        return (
            offset == self.entry
            or offset % (1 << PAGE_SHIFT) == 0
            or (offset in self.loop) != (offset - 4 in self.loop)
        )

    def define(self) -> None:
        """Make the function."""
        b = self.b
        self.enter_loop()
        self._todo.append((self.entry, self.present()))
        b.branch(self.blocks[self.entry])
        made: set[int] = set()
        while self._todo:
            offset, known = self._todo.pop()
            if offset not in made:
                made.add(offset)
                b.position_at_end(self.blocks[offset])
                self.resume(known)
                self._lower_block(offset)
        for offset in self.blocks.keys() - made:
            # Control does not come here after all: a condition is known.
            b.position_at_end(self.blocks[offset])
            b.unreachable()

    def statement(self, v: Value) -> None:
        """Do one statement."""
        self._present = v
        super().statement(v)

    def _when(self, guarded: When) -> None:
        known = self.site.constant(guarded.condition)
        bits = self._tested(guarded)
        if bits in self.known.ones:
            return
        if known is None:
            super()._when(guarded)
            if bits:
                self.known.ones.add(bits)
        elif known:
            self.block(guarded.body)

    def _tested(self, guarded: When) -> int:
        """The bits of MSR of which one has to be a one, or the guarded statements end in an interrupt; 0 if
        they do not.
        """
        condition, ends = guarded.condition, any(one.op == "interrupt" for one in _direct(guarded.body))
        if not ends or condition.op != "eq" or self.site.constant(condition.args[1]) != 0:
            return 0
        tested = condition.args[0]
        if tested.op != "and" or (tested.args[0].op, tested.args[0].detail) != ("get", "MSR"):
            return 0
        return self.site.constant(tested.args[1]) or 0

    # Addresses, counts and the TLB

    def address(self) -> ir.Value:
        """The instruction's own address."""
        return self._address_of(self.site.offset)

    def _address_of(self, offset: int) -> ir.Value:
        return self.b.add(self.read("page_base"), word(offset - self._page * (1 << PAGE_SHIFT)))

    @property
    def _page(self) -> int:
        """The distance of the entry's page, in whose records control came, from the home page."""
        return self.entry >> PAGE_SHIFT

    def _record(self, offset: int) -> ir.Value | None:
        """The record of an instruction, if it is in the entry's page."""
        if offset >> PAGE_SHIFT != self._page:
            return None
        return self.at(self.record, _record_offset(offset - self.entry))

    def _left(self, done: int) -> ir.Value:
        """What is left of the budget after so many instructions since it was stored."""
        left = self.b.load(self.budget_at, typ=I64)
        return self.b.sub(left, word(done)) if done else left

    def present_tlb(self) -> ir.Value:
        """The TLB that the thread uses."""
        return self.b.load(self.tlb_at, typ=POINTER)

    def use_tlb(self, tlb: ir.Value) -> None:
        """The thread uses another TLB, at this address, from here on."""
        self.write("tlb", tlb)
        self.b.store(self.b.inttoptr(tlb, POINTER), self.tlb_at)

    # The ends of instructions

    def leave(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back with CIA at ``address``, this instruction undone."""
        self._exit(Exit.UNDONE, self.known.done, why=why, address=address)

    def leave_done(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back behind this instruction."""
        self._exit(Exit.DONE, self.known.done + 1, why=why, address=address)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Make a way that ends: what becomes known on it is not known elsewhere."""
        before = self.present()
        yield
        self.resume(before)

    def _exit(
        self,
        exit: Exit,
        done: int,
        why: Left | ir.Value | None = None,
        address: ir.Value | None = None,
        record: ir.Value | None = None,
    ) -> None:
        """Leave the region after so many instructions, at an address or at a record."""
        b, way = self.b, _WAYS[exit]
        self._taken(exit, why)
        with self._apart():
            if way is _Way.JUMP:
                self.settle()
                self._jump_out(self._left(done), address, record)
                return
            parts = {"why": word(why) if isinstance(why, Left) else why, "address": address}
            if way is not _Way.LEAVE and record is None:
                assert address is not None
                budget = self._left(done)
                record, missing = self.record_at(address)
                with self.elsewhere(missing):
                    with self._apart():
                        self.settle()
                    b.store(address, self.exit["address"])
                    b.store(budget, self.exit["budget"])
                    b.branch(self._undecoded_end())
            for part, value in {**parts, "record": record, "budget": self._left(done)}.items():
                if value is not None:
                    b.store(value, self.exit[part])
            if not self.is_in_loop:
                self.settle()
            b.branch(self._way_out(way))

    def _jump_out(self, budget: ir.Value, address: ir.Value | None, record: ir.Value | None) -> None:
        """Go on outside the function's part, at a record or at an address."""
        b, missing = self.b, None
        if record is None:
            assert address is not None
            record, missing = self.record_at(address)
        self._count(budget)
        self.write("handlers_from", b.ptrtoint(record, I64))
        # Read once: another thread may be taking a region out.
        self.go_on(b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER), record, budget)
        if missing is not None:
            b.position_at_end(missing)
            b.store(address, self.exit["address"])
            b.store(budget, self.exit["budget"])
            b.branch(self._undecoded_end())

    def _way_out(self, way: _Way) -> ir.Block:
        """Where the region is left, from the instruction in the making."""
        end = self._ways.get((self.is_in_loop, way))
        if end is None and self.is_in_loop:
            end = self._ways[True, way] = self.block_named(f"{way.name.lower()}_from_loop")
            with self.elsewhere(end):
                self.leave_loop()
                self.b.branch(self._end(way))
        return end or self._end(way)

    def _end(self, way: _Way) -> ir.Block:
        """The end that exits of a way share."""
        end = self._ways.get((False, way))
        if end is None:
            end = self._ways[False, way] = self.block_named(way.name.lower())
            with self.elsewhere(end):
                _ENDS[way](self)
        return end

    def _taken(self, exit: Exit, why: Left | ir.Value | None) -> None:
        """The code that follows leaves the region in this way. Tests count how often that happens."""

    def _go_to(self, offset: int, done: int) -> None:
        """Go on at an instruction of the region or outside."""
        with self._apart():
            record = self._record(offset)
            if offset in self.blocks:
                self._go_within(offset, done)
            elif record is None:
                self._exit(Exit.OUTSIDE, done, address=self._address_of(offset))
            elif offset in self.functions:
                self.settle()
                budget = self._left(done)
                self._count(budget)
                self.go_on(self.functions[offset], record, budget)
            else:
                self._exit(Exit.OUTSIDE, done, record=record)

    def _go_within(self, offset: int, done: int) -> None:
        if offset >> PAGE_SHIFT != self.site.offset >> PAGE_SHIFT:
            self._check_page(offset, done)
        self.known.done = done
        stays = self.is_in_loop and offset in self.loop
        if self.is_in_loop and not stays:
            self.settle()
        if offset in self._joins or offset == self.entry:
            if not self.is_in_loop:
                self.settle()
            self.b.store(self._left(done), self.budget_at)
            # What was loaded on one side is not on the other. The loop's registers are, on all of them.
            self.resume(self.known_in_loop() if stays else Known())
        self._todo.append((offset, self.present()))
        self.b.branch(self.blocks[offset])

    def _check_page(self, offset: int, done: int) -> None:
        """Leave if the effective page of an instruction is not the real one that its code was read from.

        That is known for the page of the entry. Other pages must lie at the same distance from it in real
        memory, as the TLB must say.
        """
        b, distance = self.b, (offset >> PAGE_SHIFT) - self._page
        check, fine = self.block_named("translated"), self.block_named("page_fine")
        b.cbranch(b.icmp_unsigned("==", self.read("page_count"), word(0)), check, fine)
        b.position_at_end(check)
        # The entries of a table of pages have 8 bytes each.
        expected = b.add(self.read("page_entry"), word(8 * distance))
        effective = b.add(b.lshr(self.read("page_base"), word(PAGE_SHIFT)), word(distance))
        tag, data = self.tlb_entry(self.present_tlb(), "fetch", effective)
        other_tag = b.icmp_unsigned("!=", b.load(tag, typ=I64), effective)
        other_page = b.icmp_unsigned("!=", b.load(data, typ=I64), expected)
        elsewhere = self.unlikely(b.or_(other_tag, other_page), "elsewhere")
        b.branch(fine)
        with self.elsewhere(elsewhere):
            self._exit(Exit.ELSEWHERE, done, address=self._address_of(offset))
        b.position_at_end(fine)

    # The instructions

    def _lower_block(self, offset: int) -> None:
        self._near, self._looked_up = accesses.near(self._line(offset)) if self.sixty_four else {}, {}
        self.site = self.sites[offset]
        if offset == self.entry:
            enough = self.b.icmp_signed(">", self._left(0), word(self.region.longest[offset]))
            low = self.unlikely(self.b.not_(enough), "low")
            with self.elsewhere(low):
                self._exit(Exit.SPENT, 0, record=self.record)
        while True:
            self.site = self.sites[offset]
            if not self._lower_one():
                return
            offset += 4
            if offset in self.blocks or offset not in self.sites:
                self._go_to(offset, self.known.done)
                return

    def _line(self, offset: int) -> Iterator[Site]:
        """The instructions of the block that begins at an offset. Some may jump away."""
        site: Site | None = self.sites[offset]
        while site is not None:
            yield site
            offset += 4
            site = self.sites.get(offset) if site.falls and offset not in self.blocks else None

    def _lower_one(self) -> bool:
        """One instruction; whether the one behind it follows in the same block."""
        site = self.site
        assert site.program is not None
        self.values, self._deferred = {}, {}
        self.ended = False
        if site.jumps:
            self.b.store(ir.Constant(I1, 0), self.jumped)
        self.begin(site.program)
        self.block(site.program.body)
        if self.ended:
            self.ended = False
            return False
        self.known.done += 1
        if site.jumps and site.falls:
            jumps, falls = self.block_named("jumps"), self.block_named("falls")
            self.b.cbranch(self.b.load(self.jumped, typ=I1), jumps, falls)
            self.b.position_at_end(jumps)
            self._jump(site)
            self.b.position_at_end(falls)
        elif site.jumps:
            self._jump(site)
        return site.falls

    def _jump(self, site: Site) -> None:
        if site.targets:
            self._go_to(site.targets[0], self.known.done)
        else:
            self._jump_by_register(self.known.done)

    def _jump_by_register(self, done: int) -> None:
        """Go to an address; if it is behind a call of the region, go on there."""
        b = self.b
        target = b.load(self.nia, typ=I64)
        if self.site.is_indirect and not self.site.links:
            for offset in self.region.returns:
                there, on = self.block_named("returns"), self.block_named("on")
                b.cbranch(b.icmp_unsigned("==", target, self._address_of(offset)), there, on)
                b.position_at_end(there)
                self._go_to(offset, done)
                b.position_at_end(on)
        self._exit(Exit.REGISTER, done, address=target)

    # The ends that exits share

    def _end_by_leaving(self) -> None:
        why, address, budget = self._of_exit("why", "address", "budget")
        self._count(budget)
        self._return(why, address, budget)

    def _end_piece(self) -> None:
        self._end_by("end_of_piece")

    def _end_plainly(self) -> None:
        self._end_by("plain")

    def _end_by(self, handler: str) -> None:
        """Leave the rest to one of the handlers that the state names."""
        record, budget = self._of_exit("record", "budget")
        self._count(budget)
        self.go_on(self.b.load(self.field(handler), typ=HANDLER_POINTER), record, budget)

    def _undecoded_end(self) -> ir.Block:
        """The end of exits to a page without records."""
        if self._undecoded is None:
            self._undecoded = self.block_named("undecoded")
            with self.elsewhere(self._undecoded):
                self._taken(Exit.UNDECODED, Left.FETCH)
                address, budget = self._of_exit("address", "budget")
                self._count(budget)
                self._return(word(Left.FETCH), address, budget)
        return self._undecoded

    def _of_exit(self, *parts: str) -> list[ir.Value]:
        """What is known when the region is left."""
        return [self.b.load(self.exit[part], typ=self.exit[part].allocated_type) for part in parts]

    def _count(self, budget: ir.Value) -> None:
        """Count the instructions of the stay."""
        done = self.b.sub(self.budget, budget)
        self.write("done_in_regions", self.b.add(self.read("done_in_regions"), done))

    def _return(self, why: ir.Value, address: ir.Value, budget: ir.Value) -> None:
        self.b.store(address, self.field("CIA"))
        self.b.store(budget, self.field("budget"))
        self.b.ret(why)

    # Memory

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
            return b.inttoptr(
                b.add(ea, self._page_of(ea, size, "store" if store else "load", store)), POINTER
            )
        span = access.span
        moved = self._looked_up.get(id(span))
        if moved is None:
            lowest = b.add(ea, word(span.low - access.distance))
            moved = self._looked_up[id(span)] = self._page_of(lowest, span.high - span.low, span.use, store)
        return b.inttoptr(b.add(ea, moved), POINTER)

    def _page_of(self, ea: ir.Value, size: int, use: str, store: bool) -> ir.Value:
        """How far behind effective addresses the places of some bytes are.

        In a tight loop they often lie in the same page as the last time. No thread relies on what this one
        looks up until its piece of the run ends, and the function with it: see `define_await_piece`.
        """
        if not self.is_in_loop:
            return self._look_up(ea, size, use, store)
        b = self.b
        with b.goto_entry_block():
            begin, room, distance = (b.alloca(I64) for _ in range(3))
            b.store(word(0), room)
        inside = b.sub(ea, b.load(begin, typ=I64))
        known = self.block_named("known")
        another = self.unlikely(b.icmp_unsigned(">=", inside, b.load(room, typ=I64)), "another")
        b.branch(known)
        with self.elsewhere(another):
            b.store(self._look_up(ea, size, use, store), distance)
            b.store(b.and_(ea, word(-(1 << PAGE_SHIFT))), begin)
            b.store(word(self._room(size)), room)
            b.branch(known)
        b.position_at_end(known)
        return b.load(distance, typ=I64)

    @staticmethod
    def _room(size: int) -> int:
        """At how many places in a page so many bytes may begin."""
        return (1 << PAGE_SHIFT) - size + 1

    def _look_up(self, ea: ir.Value, size: int, use: str, store: bool) -> ir.Value:
        """How far behind effective addresses the places of some bytes are, for a use.

        ``store`` says whether the access that is being made is a store.
        """
        b = self.b
        last = b.lshr(b.add(ea, word(size - 1)), word(PAGE_SHIFT))
        tag, data = self.tlb_entry_at(self.present_tlb(), use, ea)
        absent = self.unlikely(b.icmp_unsigned("!=", b.load(tag, typ=I64), last), "absent")
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

    def _find(self, ea: ir.Value, size: int, use: str, store: bool) -> ir.Value:
        """Have a page found that is not in the first entry of its place."""
        field = self.field(finding_field(use, "store" if store else "load"))
        function = self.b.load(field, typ=finding.FIND_POINTER)
        arguments = [self.state, self.present_tlb(), ea, word(size)]
        return self.b.call(function, arguments, cconv=finding.CONVENTION)


_ENDS = {
    _Way.LEAVE: EntryLowering._end_by_leaving,
    _Way.PIECE_END: EntryLowering._end_piece,
    _Way.PLAIN: EntryLowering._end_plainly,
}
