"""How a function of a region is left, with the state exact and its instructions counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from llvmlite import ir

from chronovisor.engine.native.emitter import HANDLER_POINTER, I64, POINTER, Rows, word
from chronovisor.engine.native.layout import PAGE_SHIFT, RECORD_HANDLER, RECORD_SIZE, Left
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.regions.discovery import Region
from chronovisor.engine.regions.statements import StatementLowering


class _Way(Enum):
    """How the region is left."""

    LEAVE = "return to `enter`, with CIA at an address"
    JUMP = "go on at an address"
    SELDOM = "the same; so few threads come here that exits share the jump"
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
    Exit.ELSEWHERE: _Way.SELDOM,
    Exit.ABSENT: _Way.PLAIN,
}
"""The way of each exit but UNDECODED, which is found out on the ways that go on."""


def _record_offset(offset: int) -> int:
    """How far behind the records of its page an instruction's record is, in bytes."""
    return offset // 4 * RECORD_SIZE


class ExitLowering(StatementLowering):
    """The function of a region's entry in the making, as far as its ends are concerned."""

    def __init__(
        self, module: ir.Module, name: str, mode: Mode, rows: Rows, region: Region, entry: int
    ) -> None:
        super().__init__(module, name, mode, rows, region.part(entry), region.loop(entry))
        self.region, self.entry = region, entry
        #: The instructions before which the function makes sure that its budget lasts to the next cut.
        self.heads = {entry, *(region.cuts & self.loop)}
        b = self.b
        #: How much less is stored than the budget has. So an inner loop ends when that becomes negative, for
        #: which nothing has to be compared.
        self._aside = min(region.longest[head] for head in self.heads - {entry} or {entry}) + 1
        self._spendable_at = b.alloca(I64)
        b.store(b.sub(self.budget, word(self._aside)), self._spendable_at)
        self.exit = {part: b.alloca(I64) for part in ("why", "address", "budget")}
        self.exit["record"] = b.alloca(POINTER)
        self._undecoded: ir.Block | None = None
        #: The ends that exits share: by whether the exits are in the tight loop, by their way, and by whether
        #: they know an address or a record. A jump is each exit's own: a processor predicts it better than
        #: one that goes to wherever any of them does.
        self._ends: dict[tuple[bool, _Way, bool], ir.Block] = {}

    # Addresses and counts

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
        """What is left of the budget after so many instructions since some were spent."""
        return self.b.add(self.b.load(self._spendable_at, typ=I64), word(self._aside - done))

    def spend(self, done: int) -> None:
        """Take so many instructions from the budget."""
        left = self.b.load(self._spendable_at, typ=I64)
        self.b.store(self.b.sub(left, word(done)), self._spendable_at)

    def lasts(self, instructions: int) -> ir.Value:
        """Whether the budget, from which all was taken, lasts for so many instructions and more."""
        spendable = self.b.load(self._spendable_at, typ=I64)
        return self.b.icmp_signed(">", spendable, word(instructions - self._aside))

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
            value = word(why) if isinstance(why, Left) else why
            parts = {"why": value, "address": address, "record": record, "budget": self._left(done)}
            for part, value in parts.items():
                if value is not None:
                    b.store(value, self.exit[part])
            if not self.is_in_loop:
                self.settle()
            b.branch(self._way_out(way, record is None))

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

    def _way_out(self, way: _Way, is_at_address: bool) -> ir.Block:
        """The block that leaves the region in this way, for the instruction in the making."""
        if not self.is_in_loop:
            return self._end(way, is_at_address)
        end = self._ends.get((True, way, is_at_address))
        if end is None:
            end = self._ends[True, way, is_at_address] = self.block_named(f"{way.name.lower()}_from_loop")
            with self.elsewhere(end):
                self.leave_loop()
                self.b.branch(self._end(way, is_at_address))
        return end

    def _end(self, way: _Way, is_at_address: bool) -> ir.Block:
        """The end that exits of a way share, if they know an address or if they know a record."""
        end = self._ends.get((False, way, is_at_address))
        if end is None:
            end = self._ends[False, way, is_at_address] = self.block_named(way.name.lower())
            with self.elsewhere(end):
                self._define_end(way, is_at_address)
        return end

    def _define_end(self, way: _Way, is_at_address: bool) -> None:
        b = self.b
        (budget,) = self._of_exit("budget")
        if way is _Way.LEAVE:
            why, address = self._of_exit("why", "address")
            self._count(budget)
            self._return(why, address, budget)
        elif way is _Way.SELDOM:
            (address,) = self._of_exit("address")
            self._jump_out(budget, address, None)
        else:
            (place,), missing = self._of_exit("address" if is_at_address else "record"), None
            if is_at_address:
                place, missing = self.record_at(place)
            self._count(budget)
            handler = self.field("plain" if way is _Way.PLAIN else "end_of_piece")
            self.go_on(b.load(handler, typ=HANDLER_POINTER), place, budget)
            if missing is not None:
                b.position_at_end(missing)
                b.branch(self._undecoded_end())

    def _taken(self, exit: Exit, why: Left | ir.Value | None) -> None:
        """The code that follows leaves the region in this way. Tests count how often that happens."""

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
