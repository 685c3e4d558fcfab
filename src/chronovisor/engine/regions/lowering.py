"""A region as one LLVM function, whose entries are handlers that take instructions' places in records.

The state is exact whenever anything else looks at it: see `registers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    HANDLER,
    HANDLER_CONVENTION,
    HANDLER_POINTER,
    I1,
    I64,
    POINTER,
    Rows,
    ThreadEmitter,
    call_handler,
    word,
)
from chronovisor.engine.native.layout import (
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_PLAIN,
    RECORD_SIZE,
    SPENT,
    Left,
)
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions import accesses
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.registers import RegisterLowering
from chronovisor.engine.regions.tight_loops import Loop
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
    """Define a region, and a handler for each of its entries."""
    made = RegionLowering(module, mode, rows, region).function
    for number, entry in enumerate(region.entries):
        _Entry(module, made, number, entry)


class _Entry(ThreadEmitter):
    """The handler that enters a region at one of its entries."""

    def __init__(self, module: ir.Module, region: ir.Function, number: int, offset: int) -> None:
        super().__init__(module, HANDLER, entry_symbol(number))
        self.function.calling_convention = HANDLER_CONVENTION
        b, (state, record, memory, budget, *_) = self.b, self.function.args
        home = b.sub(self.read("page_base"), word(offset >> PAGE_SHIFT << PAGE_SHIFT))
        # Only used if all entries are in the home page.
        records = self.at(record, -_record_offset(offset))
        arguments = (state, records, memory, budget, home, word(number))
        b.ret(call_handler(b, region, *arguments, tail="musttail"))


def _record_offset(offset: int) -> int:
    """How far behind the records of its page an instruction's record is, in bytes."""
    return offset // 4 * RECORD_SIZE


def _direct(block: Block) -> Iterator[Value]:
    """The statements of a block that are done whenever the block is."""
    return (s for s in block if not isinstance(s, When))


class RegionLowering(RegisterLowering):
    """A region in the making.

    Its function's arguments are: the state, the records of the home page, memory, the budget, the effective
    address of the home page, and the number of the entry.
    """

    def __init__(self, module: ir.Module, mode: Mode, rows: Rows, region: Region) -> None:
        super().__init__(module, mode, rows, region)
        self.function.linkage = "internal"
        b = self.b
        self.budget_at = b.alloca(I64)
        b.store(self.function.args[3], self.budget_at)
        self.exit = {part: b.alloca(I64) for part in ("why", "address", "budget")}
        self.undecoded = self.block_named("undecoded")
        #: The ends that exits share, and those of tight loops. A jump is each exit's own: a processor
        #: predicts it better than one that goes to wherever any of them does.
        self._ways: dict[tuple[Loop | None, _Way], ir.Block] = {
            (None, way): self.block_named(way.name.lower()) for way in _Way if way is not _Way.JUMP
        }
        self.home = self.function.args[4]
        #: The records of the home page, if that is the page that the thread executes in the region.
        in_home = all(entry >> PAGE_SHIFT == 0 for entry in region.entries)
        self.records: ir.Value | None = self.record if in_home else None
        self.blocks = {o: self.block_named(f"at_{o:x}") for o in region.sites if self._begins_block(o)}
        #: The instruction in the making, and how many of its block are done before it.
        self.site = region.sites[region.entries[0]]
        self.done = 0
        #: The statement in the making; accesses of the block that share a look into the TLB, and for each
        #: span that was looked up the real address at distance 0.
        self._present: Value | None = None
        self._near: Mapping[tuple[int, int], accesses.Access] = {}
        self._looked_up: dict[int, ir.Value] = {}
        #: Sets of bits of MSR: in the block one of each set is known to be a one. A region leaves MSR alone.
        self._ones: set[int] = set()
        self._define_entries()
        for offset in region.sites:
            if offset in self.blocks:
                self._lower_block(offset)
        self._define_exits()

    def _define_entries(self) -> None:
        """Each entry loads the registers that are used from there on."""
        b = self.b
        first, *others = (self.block_named(f"entry_{n}") for n in range(len(self.region.entries)))
        choice = b.switch(self.function.args[5], first)
        for number, block in enumerate(others, 1):
            choice.add_case(word(number), block)
        for entry, block in zip(self.region.entries, (first, *others), strict=True):
            b.position_at_end(block)
            self.load_registers()
            b.branch(self.blocks[entry])

    def statement(self, v: Value) -> None:
        """Do one statement."""
        self._present = v
        super().statement(v)

    def _when(self, guarded: When) -> None:
        known = self.site.constant(guarded.condition)
        bits = self._tested(guarded)
        if bits in self._ones:
            return
        if known is None:
            super()._when(guarded)
            if bits:
                self._ones.add(bits)
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

    # Addresses and counts

    def address(self) -> ir.Value:
        """The instruction's own address."""
        return self._address_of(self.site.offset)

    def _address_of(self, offset: int) -> ir.Value:
        return self.b.add(self.home, word(offset))

    def _budget(self, done: int) -> ir.Value:
        """What is left of the budget after so many instructions of the present block."""
        left = self.b.load(self.budget_at, typ=I64)
        return self.b.sub(left, word(done)) if done else left

    # The ends of instructions

    def leave(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back with CIA at ``address``, this instruction undone."""
        self._exit(Exit.UNDONE, why, address, self.done)

    def leave_done(self, why: Left | ir.Value, address: ir.Value) -> None:
        """Hand the thread back behind this instruction."""
        self._exit(Exit.DONE, why, address, self.done + 1)

    def _exit(self, exit: Exit, why: Left | ir.Value, address: ir.Value, done: int) -> None:
        b = self.b
        self._taken(exit, why)
        if _WAYS[exit] is _Way.JUMP:
            self._end_loop()
            budget = self._budget(done)
            self._jump_out(*self._record_of(address), address, budget)
            return
        parts = {
            "why": word(why) if isinstance(why, Left) else why,
            "address": address,
            "budget": self._budget(done),
        }
        for part, value in parts.items():
            b.store(value, self.exit[part])
        b.branch(self._way_out(_WAYS[exit]))

    def _exit_near(self, offset: int, done: int) -> None:
        """Go on outside the region at an instruction of the home page, whose records are the present ones."""
        self._taken(Exit.OUTSIDE, word(0))
        self._end_loop()
        self._jump_out(self.at(self.record, _record_offset(offset)), None, None, self._budget(done))

    def _end_loop(self) -> None:
        if self.loop is not None:
            self.store_registers(self.loop)

    def _jump_out(
        self, record: ir.Value, missing: ir.Block | None, address: ir.Value | None, budget: ir.Value
    ) -> None:
        """Go on at a record; ``missing`` is the block for an address without one."""
        b = self.b
        self._count(budget)
        self.write("handlers_from", b.ptrtoint(record, I64))
        # Read once: another thread may be taking a region out.
        self._go_on(b.load(self.at(record, RECORD_HANDLER), typ=HANDLER_POINTER), record, budget)
        if missing is not None:
            b.position_at_end(missing)
            b.store(address, self.exit["address"])
            b.store(budget, self.exit["budget"])
            b.branch(self.undecoded)

    def _way_out(self, way: _Way) -> ir.Block:
        """Where the region is left, from the instruction in the making."""
        end = self._ways.get((self.loop, way))
        if end is None:
            end = self._ways[self.loop, way] = self.block_named(f"{way.name.lower()}_from_loop")
            with self.elsewhere(end):
                self._end_loop()
                self.b.branch(self._ways[None, way])
        return end

    def _taken(self, exit: Exit, why: Left | ir.Value) -> None:
        """The code that follows leaves the region in this way. Tests count how often that happens."""

    def _go_to(self, offset: int, done: int) -> None:
        """Go on at an instruction of the page, in the region or outside."""
        block = self.blocks.get(offset)
        if block is None:
            if self.records is not None and offset >> PAGE_SHIFT == 0:
                self._exit_near(offset, done)
            else:
                self._exit(Exit.OUTSIDE, word(0), self._address_of(offset), done)
            return
        if offset >> PAGE_SHIFT != self.site.offset >> PAGE_SHIFT:
            self._check_page(offset, done)
        self.b.store(self._budget(done), self.budget_at)
        if self.loop is not None and self.loops.get(offset) is not self.loop:
            self.store_registers(self.loop)
        self.b.branch(block)

    def _check_page(self, offset: int, done: int) -> None:
        """Leave if the effective page of an instruction is not the real one that its code was read from.

        That is known for the page of the entry. Other pages must lie at the same distance from it in real
        memory, as the TLB must say.
        """
        b, page = self.b, offset >> PAGE_SHIFT
        check, fine = self.block_named("translated"), self.block_named("page_fine")
        b.cbranch(b.icmp_unsigned("==", self.read("page_count"), word(0)), check, fine)
        b.position_at_end(check)
        tlb = b.inttoptr(self.read("tlb"), POINTER)
        # The entries of a table of pages have 8 bytes each.
        entered = b.ashr(b.sub(self.read("page_base"), self.home), word(PAGE_SHIFT - 3))
        expected = b.add(b.sub(self.read("page_entry"), entered), word(8 * page))
        effective = b.add(b.lshr(self.home, word(PAGE_SHIFT)), word(page))
        tag, data = self.tlb_entry(tlb, "fetch", effective)
        other_tag = b.icmp_unsigned("!=", b.load(tag, typ=I64), effective)
        other_page = b.icmp_unsigned("!=", b.load(data, typ=I64), expected)
        elsewhere = self.unlikely(b.or_(other_tag, other_page), "elsewhere")
        b.branch(fine)
        with self.elsewhere(elsewhere):
            self._exit(Exit.ELSEWHERE, word(0), self._address_of(offset), done)
        b.position_at_end(fine)

    def _begins_block(self, offset: int) -> bool:
        """Whether control comes to an instruction of the region not from the one before alone."""
        region = self.region
        before = region.sites.get(offset - 4)
        return (
            offset in region.entries
            or offset in region.returns
            or offset % (1 << PAGE_SHIFT) == 0
            or before is None
            or not before.falls
            or self.loops.get(offset) is not self.loops.get(offset - 4)
            or any(offset in site.targets for site in region.sites.values())
        )

    # The instructions

    def _lower_block(self, offset: int) -> None:
        self.b.position_at_end(self.blocks[offset])
        self.done = 0
        self._near, self._looked_up = accesses.near(self._line(offset)) if self.sixty_four else {}, {}
        self._ones = set()
        if offset in self.region.entries:
            self.site = self.region.sites[offset]
            enough = self.b.icmp_signed(">", self._budget(0), word(self.region.longest[offset]))
            low = self.unlikely(self.b.not_(enough), "low")
            with self.elsewhere(low):
                self._exit(Exit.SPENT, word(0), self.address(), 0)
        while True:
            self.site = self.region.sites[offset]
            if not self._lower_one():
                return
            offset += 4
            if offset in self.blocks or offset not in self.region.sites:
                self._go_to(offset, self.done)
                return

    def _line(self, offset: int) -> Iterator[Site]:
        """The instructions of the block that begins at an offset. Some may jump away."""
        site: Site | None = self.region.sites[offset]
        while site is not None:
            yield site
            offset += 4
            site = self.region.sites.get(offset) if site.falls and offset not in self.blocks else None

    def _lower_one(self) -> bool:
        """One instruction; whether the one behind it follows in the same block."""
        site = self.site
        assert site.program is not None
        self.values, self._deferred = {}, {}
        self.ended = False
        self.b.store(ir.Constant(I1, 0), self.jumped)
        self.begin(site.program)
        self.block(site.program.body)
        if self.ended:
            self.ended = False
            return False
        self.done += 1
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
            self._go_to(site.targets[0], self.done)
        else:
            self._jump_by_register(self.done)

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
        self._exit(Exit.REGISTER, word(0), target, done)

    def _define_exits(self) -> None:
        """The ends that exits share."""
        b = self.b
        b.position_at_end(self._ways[None, _Way.LEAVE])
        why, address, budget = self._left("why", "address", "budget")
        self._count(budget)
        self._return(why, address, budget)

        b.position_at_end(self._ways[None, _Way.PIECE_END])
        last, not_last = self._ways[None, _Way.PLAIN], self.block_named("not_last")
        b.cbranch(b.icmp_unsigned("!=", self.read("last_piece"), word(0)), last, not_last)
        b.position_at_end(not_last)
        self.write("handlers_from", word(SPENT))
        b.branch(self._ways[None, _Way.LEAVE])

        b.position_at_end(self._ways[None, _Way.PLAIN])
        address, budget = self._left("address", "budget")
        self._count(budget)
        record, missing = self._record_of(address)
        self.write("handlers_from", word(SPENT))
        plain = b.load(self.at(record, RECORD_PLAIN), typ=I64)
        present = b.load(self.at(record, RECORD_HANDLER), typ=I64)
        # Records that were made since the region was put in have no other handler.
        has = b.icmp_unsigned("!=", plain, word(0))
        self._go_on(b.inttoptr(b.select(has, plain, present), HANDLER_POINTER), record, budget)
        b.position_at_end(missing)
        b.branch(self.undecoded)

        b.position_at_end(self.undecoded)
        self._taken(Exit.UNDECODED, Left.FETCH)
        self._return(word(Left.FETCH), *self._left("address", "budget"))

    def _left(self, *parts: str) -> list[ir.Value]:
        """What is known when the region is left."""
        return [self.b.load(self.exit[part], typ=I64) for part in parts]

    def _count(self, budget: ir.Value) -> None:
        """Count the instructions of the stay."""
        done = self.b.sub(self.function.args[3], budget)
        self.write("done_in_regions", self.b.add(self.read("done_in_regions"), done))

    def _go_on(self, handler: ir.Value, record: ir.Value, budget: ir.Value) -> None:
        b = self.b
        b.ret(call_handler(b, handler, self.state, record, self.memory, budget, tail="musttail"))

    def _record_of(self, address: ir.Value) -> tuple[ir.Value, ir.Block]:
        """As `record_at`; within the home page nothing has to be looked up."""
        if self.records is None:
            return self.record_at(address)
        b = self.b
        near, far, found = (self.block_named(n) for n in ("near", "far", "at_record"))
        inside = b.sub(address, self.home)
        b.cbranch(b.icmp_unsigned("<", inside, word(1 << PAGE_SHIFT)), near, far)
        b.position_at_end(near)
        here = self.at(self.records, b.mul(b.lshr(inside, word(2)), word(RECORD_SIZE)))
        b.branch(found)
        b.position_at_end(far)
        elsewhere, missing = self.record_at(address)
        end = b.block
        b.branch(found)
        b.position_at_end(found)
        record = b.phi(POINTER)
        record.add_incoming(here, near)
        record.add_incoming(elsewhere, end)
        return record, missing

    def _return(self, why: ir.Value, address: ir.Value, budget: ir.Value) -> None:
        self.b.store(address, self.field("CIA"))
        self.b.store(budget, self.field("budget"))
        self.b.ret(why)

    # Memory

    def real_address(self, ea: ir.Value, size: int, store: bool) -> ir.Value:
        """The guest real address of ``size`` bytes at an effective one.

        The first of accesses that are near each other looks the page of all of them up. If the TLB does not
        have it, or if they are in two pages, the instruction's own handler goes on.
        """
        access = self._near.get((self.site.offset, id(self._present)))
        if access is None:
            return self._look_up(ea, size, store)
        span, b = access.span, self.b
        origin = self._looked_up.get(id(span))
        if origin is None:
            lowest = b.add(ea, word(span.low - access.distance))
            origin = b.sub(self._look_up(lowest, span.high - span.low, store), word(span.low))
            self._looked_up[id(span)] = origin
        return b.add(origin, word(access.distance))

    def _look_up(self, ea: ir.Value, size: int, store: bool) -> ir.Value:
        b = self.b
        if not self.sixty_four:
            ea = b.and_(ea, word(0xFFFFFFFF))
        page = b.lshr(ea, word(PAGE_SHIFT))
        last = b.lshr(b.add(ea, word(size - 1)), word(PAGE_SHIFT)) if size > 1 else page
        tlb = b.inttoptr(self.read("tlb"), POINTER)
        tag, data = self.tlb_entry(tlb, "store" if store else "load", page)
        absent = self.unlikely(b.icmp_unsigned("!=", b.load(tag, typ=I64), last), "absent")
        with self.elsewhere(absent):
            self._exit(Exit.ABSENT, word(0), self.address(), self.done)
        return b.add(ea, b.load(data, typ=I64))
