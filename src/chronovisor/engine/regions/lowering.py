"""A region as LLVM functions, one for each entry: handlers that take instructions' places in records.

A function does the instructions from its entry on, until control comes to an instruction that the function of
another entry does. The state is exact whenever anything else looks at it: see `registers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.emitter import I1, I64, Rows, word
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions.accesses import Line
from chronovisor.engine.regions.addresses import shifted
from chronovisor.engine.regions.code import Site, is_jump, sets_target
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.exits import Exit
from chronovisor.engine.regions.registers import Known
from chronovisor.engine.regions.strips import StraightLoop, StripLowering
from chronovisor.isa.values import Block, Value, When

_SCALES: Final = (1, 2, 3)
"""By how many bits x86's addresses can shift a register."""


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


def _direct(block: Block) -> Iterator[Value]:
    """The statements of a block that are done whenever the block is."""
    return (s for s in block if not isinstance(s, When))


class EntryLowering(StripLowering):
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
        super().__init__(module, name, mode, rows, region, entry)
        self.functions = functions
        sides = self._sides()
        self.blocks = {o: self.block_named(f"at_{o:x}") for o in self.sites if o in sides}
        #: The blocks that control comes to instead of a head if the budget may not last to the next cut.
        self._spent = {head: self.block_named(f"spent_{head:x}") for head in self.heads}
        #: The blocks that control comes to from two sides: what is known on one of them is not used there.
        self._joins = self.heads | {o for o, count in sides.items() if count > 1}
        #: The blocks that are still to be made, with what is known there.
        self._todo: list[tuple[int, Known]] = []
        #: The instruction in the making; if it jumps at its end, under what condition and to what address.
        self.site = self.sites[entry]
        self._jumps_if: ir.Value | None = None
        self._target: ir.Value | None = None

    def _sides(self) -> dict[int, int]:
        """From how many sides control comes to each instruction that begins a block: not to those that only
        follow the one before.
        """
        found = {self.entry: 1}
        after = {
            one.offset: following.offset
            for loop in self.straight_loops.values()
            for one, following in pairwise((*loop.sites, loop.sites[0]))
        }
        for offset in self.sites:
            for following in self.region.following[offset]:
                if following in self.sites:
                    # A straight loop is left by its instructions that are checked, and by those that are not.
                    leaves = offset in after and following != after[offset]
                    found[following] = found.get(following, 0) + 1 + leaves
        for offset in self.sites:
            before = self.sites.get(offset - 4)
            follows = before is not None and before.falls and found.get(offset) == 1
            if follows and not self._begins(offset):
                del found[offset]
        return found

    def _begins(self, offset: int) -> bool:
        """Whether a block begins at an instruction although control comes from the one before alone."""
        return (
            offset in self.heads
            or offset % (1 << PAGE_SHIFT) == 0
            or (offset in self.loop) != (offset - 4 in self.loop)
        )

    def define(self) -> None:
        """Make the function."""
        b = self.b
        self.enter_loop()
        self._todo.append((self.entry, self.present()))
        self._branch(self.entry)
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
            for block in (self.blocks[offset], self._spent.get(offset)):
                if block is not None:
                    b.position_at_end(block)
                    b.unreachable()

    def _when(self, guarded: When) -> None:
        known = self.site.constant(guarded.condition)
        bits = self._tested(guarded)
        if bits in self.known.ones:
            return
        if known is None and self.site.jumps_at_end and is_jump(guarded):
            self._jumps_if = self.value(guarded.condition)
            self.block(guarded.body)
        elif known is None:
            super()._when(guarded)
            if bits:
                self.known.ones.add(bits)
        elif known:
            self.block(guarded.body)

    def statement(self, v: Value) -> None:
        """Do one statement, unless it sets the target of a jump that is known already."""
        if not (self.site.jumps_at_end and sets_target(v) and self.site.targets):
            super().statement(v)

    def jump_to(self, target: ir.Value) -> None:
        """The next instruction is at ``target``, under the condition if there is one."""
        if self.site.jumps_at_end:
            self._target = target
        else:
            super().jump_to(target)

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

    def by_operation(self, v: Value) -> None:
        """Do one statement as its operation's row says, but a tight loop's shifts to the left.

        If a doubleword is used again, LLVM would shift it by an address without a base (`lea`), which takes
        as long as two shifts. So the shift gets a copy of which LLVM does not know that it is one.
        """
        shift = shifted(self.site, v) if self.is_in_loop and not self.lanes else None
        if shift is None or shift.by not in _SCALES or shift.width + shift.by < I64.width:
            super().by_operation(v)
            return
        whole = [self.value(shift.value)]
        copy = self.b.asm(ir.FunctionType(I64, [I64]), "", "=r,0", whole, side_effect=False)
        self.values[id(v)] = self.b.shl(copy, word(shift.by))

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

    def _exit_spent(self, offset: int) -> None:
        """Leave at a head: the budget may not last to the next cut."""
        record = self._record(offset)
        address = self._address_of(offset) if record is None else None
        self._exit(Exit.SPENT, 0, address=address, record=record)

    def _go_within(self, offset: int, done: int) -> None:
        if self.strip is not None:
            if offset == self.strip[0].head:
                self.next_round()
                self._branch(offset)
                return
            self.end_strip()
        if offset >> PAGE_SHIFT != self.site.offset >> PAGE_SHIFT:
            self._check_page(offset, done)
        self.known.done = done
        if self.is_in_loop and offset not in self.loop:
            self.settle()
        if offset in self._joins:
            if not self.is_in_loop:
                self.settle()
                if offset in self.loop:
                    self.enter_loop_again()
            self.spend(done)
            # What was loaded on one side is not on the other. The loop's registers are, on all of them.
            self.resume(self.known_in_loop() if offset in self.loop else Known())
        self._todo.append((offset, self.present()))
        self._branch(offset)

    def _branch(self, offset: int) -> None:
        """Go on at a block; at a head only if the budget lasts to the next cut."""
        if offset in self.heads:
            spent = self.unlikely(self.b.not_(self.lasts(self.region.longest[offset])), "low")
            with self.elsewhere(spent):
                self.b.branch(self._spent[offset])
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
        self.site = self.sites[offset]
        if offset in self.heads:
            with self.elsewhere(self._spent[offset]):
                self._exit_spent(offset)
        if (loop := self.straight_loops.get(offset)) is not None:
            self._lower_straight_loop(loop)
        else:
            self.begin_line(Line(self._line(offset)) if self.sixty_four else None)
            self._lower_line(offset)

    def _lower_straight_loop(self, loop: StraightLoop) -> None:
        """Make a straight loop twice: for rounds that are checked one by one, and for those of strips."""
        known = self.present()
        self.begin_line(loop.line)
        checked, unchecked = self.block_named("checked"), self.block_named("unchecked")
        looked_up = self.begin_strip(loop, checked)
        self.b.branch(unchecked)
        self.b.position_at_end(checked)
        self._lower_line(loop.head)
        self.b.position_at_end(unchecked)
        self.resume(known)
        self.looked_up, self.strip = looked_up, (loop, unchecked)
        self._lower_line(loop.head)
        self.strip = None

    def _lower_line(self, offset: int) -> None:
        """Make the straight line of instructions that begins at an offset."""
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
        if site.jumps and not site.jumps_at_end:
            self.b.store(ir.Constant(I1, 0), self.jumped)
        self.values, self._deferred = {}, {}
        self.ended = False
        self.begin(site.program)
        self.block(site.program.body)
        if self.ended:
            self.ended = False
            return False
        self.known.done += 1
        if site.jumps and site.falls:
            jumps, falls = self.block_named("jumps"), self.block_named("falls")
            condition = self._jumps_if if site.jumps_at_end else self.b.load(self.jumped, typ=I1)
            self.b.cbranch(condition, jumps, falls)
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
        target = self._target if self.site.jumps_at_end else b.load(self.nia, typ=I64)
        if self.site.is_indirect and not self.site.links:
            for offset in self.region.returns:
                there, on = self.block_named("returns"), self.block_named("on")
                b.cbranch(b.icmp_unsigned("==", target, self._address_of(offset)), there, on)
                b.position_at_end(there)
                self._go_to(offset, done)
                b.position_at_end(on)
        self._exit(Exit.REGISTER, done, address=target)
