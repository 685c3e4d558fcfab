"""A region as one LLVM function, which has a handler's signature and takes a handler's place in records.

Registers that the region uses are LLVM values within it. They are loaded at its entries and stored at its one
exit, so the state is exact whenever anything else looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum, IntEnum
from types import MappingProxyType

from llvmlite import ir

from chronovisor.engine.native.emitter import HANDLER, HANDLER_POINTER, I1, I64, POINTER, Rows, word
from chronovisor.engine.native.layout import (
    OFFSETS,
    PAGE_SHIFT,
    RECORD_HANDLER,
    RECORD_PLAIN,
    RECORD_SIZE,
    Left,
    file_field,
)
from chronovisor.engine.native.lowering import Lowering, Mode
from chronovisor.engine.regions import accesses, bit_registers
from chronovisor.engine.regions.bit_registers import BitRegister
from chronovisor.engine.regions.code import Site
from chronovisor.engine.regions.discovery import Region
from chronovisor.isa.registers import FILES, RegisterFile
from chronovisor.isa.values import Block, Value, When

#: Addresses, which have no place of their own.
_ADDRESSES = ("CIA", "NIA")
#: The most bits of a register that have a place each.
_MOST_BITS = 32


#: The region's function: a handler with one more argument, the number of the entry.
_REGION = ir.FunctionType(I64, [POINTER, POINTER, POINTER, I64, I64])


class _Way(IntEnum):
    """How the region is left."""

    LEAVE = 0  # return to `enter`, with CIA at an address
    JUMP = 1  # go on at an address
    PLAIN = 2  # the same, by the instruction's own handler although a region begins there


class Exit(Enum):
    """Why the region is left; which way follows from that."""

    UNDONE = "an instruction is left undone"
    DONE = "an instruction is done and hands the thread back"
    OUTSIDE = "control goes on outside the region"
    REGISTER = "a register says where control goes on"
    SPENT = "the budget may not last to the next entry"
    ELSEWHERE = "the region's pages are mapped in another way"
    ABSENT = "the TLB does not have the page of an access, or it is in two pages"
    UNDECODED = "control goes on in a page that has no records"


_WAYS = {
    Exit.UNDONE: _Way.LEAVE,
    Exit.DONE: _Way.LEAVE,
    Exit.OUTSIDE: _Way.JUMP,
    Exit.REGISTER: _Way.JUMP,
    Exit.SPENT: _Way.PLAIN,
    Exit.ELSEWHERE: _Way.PLAIN,
    Exit.ABSENT: _Way.PLAIN,
}
"""The way of each exit but UNDECODED, which is found out on the ways that go on."""


def entry_symbol(number: int) -> str:
    """The name of the handler with which the region's entry of this number is entered."""
    return f"chronovisor_region_{number}"


def define_region(module: ir.Module, mode: Mode, rows: Rows, region: Region) -> None:
    """Define a region, and a handler for each of its entries."""
    made = RegionLowering(module, mode, rows, region).function
    for number in range(len(region.entries)):
        handler = ir.Function(module, HANDLER, entry_symbol(number))
        handler.calling_convention = "tailcc"
        b = ir.IRBuilder(handler.append_basic_block())
        arguments = [*handler.args, word(number)]
        b.ret(b.call(made, arguments, cconv="tailcc", tail="musttail"))


def _whole(v: Value) -> Value | None:
    """What is read or set as a whole by a statement that may be one about single bits."""
    while True:
        if bit_registers.is_read(v) or (v.op == "set" and v.detail in bit_registers.NAMES):
            return v
        if v.op not in ("lshr", "and", "or", "extract"):
            return None
        v = v.args[0]


def _record_offset(offset: int) -> int:
    """How far behind the records of its page an instruction's record is, in bytes."""
    return offset // 4 * RECORD_SIZE


def _direct(block: Block) -> Iterator[Value]:
    """The statements of a block that are done whenever the block is."""
    return (s for s in block if not isinstance(s, When))


class RegionLowering(Lowering):
    """A region in the making."""

    kind = _REGION
    #: The places of the registers that the region changes, by their names.
    _named: Mapping[str, ir.Value] = MappingProxyType({})

    def __init__(self, module: ir.Module, mode: Mode, rows: Rows, region: Region) -> None:
        super().__init__(module, "chronovisor_region", mode, rows)
        self.function.linkage = "internal"
        self.region = region
        b = self.b
        self.budget_at = b.alloca(I64)
        b.store(self.function.args[3], self.budget_at)
        self.exit = {part: b.alloca(I64) for part in ("way", "why", "address", "budget")}
        self.exit_block = self.block_named("exit")
        before = self._of_entry(lambda entry: entry >> PAGE_SHIFT << PAGE_SHIFT)
        self.home = b.sub(self.read("page_base"), before)
        #: The records of the home page, if that is the page that the thread executes in the region.
        self.records: ir.Value | None = None
        if all(entry >> PAGE_SHIFT == 0 for entry in region.entries):
            self.records = self.at(self.record, self._of_entry(lambda entry: -_record_offset(entry)))
        self._load_registers()
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
        self._check_pages()
        choice = b.switch(self.function.args[4], self.blocks[region.entries[0]])
        for number, entry in enumerate(region.entries[1:], 1):
            choice.add_case(word(number), self.blocks[entry])
        for offset in region.sites:
            if offset in self.blocks:
                self._lower_block(offset)
        self._define_exit()

    def _of_entry(self, of: Callable[[int], int]) -> ir.Value:
        """A number that depends on the offset of the entry at which the region was entered."""
        numbers = [of(entry) for entry in self.region.entries]
        found: ir.Value = word(numbers[0])
        for number, value in enumerate(numbers):
            if value != numbers[0]:
                here = self.b.icmp_unsigned("==", self.function.args[4], word(number))
                found = self.b.select(here, word(value), found)
        return found

    def _check_pages(self) -> None:
        """Leave if an effective page of the region is not the real one that its code was read from.

        That is known for the page of the entry. Other pages must lie at the same distance from it in real
        memory. If the TLB does not say that, the instruction's own handler goes on.
        """
        b, pages = self.b, self.region.pages
        if len(pages) == 1:
            return
        check, fine = self.block_named("translated"), self.block_named("pages_fine")
        count = self.read("page_count")
        b.cbranch(b.icmp_unsigned("==", count, word(0)), check, fine)
        b.position_at_end(check)
        tlb = b.inttoptr(self.read("tlb"), POINTER)
        home = b.sub(self.read("page_entry"), self._of_entry(lambda entry: 8 * (entry >> PAGE_SHIFT)))
        number = b.lshr(self.home, word(PAGE_SHIFT))
        wrong: ir.Value = ir.Constant(I1, 0)
        for page in pages:
            effective = b.add(number, word(page))
            tag, data = self.tlb_entry(tlb, "fetch", effective)
            other_tag = b.icmp_unsigned("!=", b.load(tag, typ=I64), effective)
            other_page = b.icmp_unsigned("!=", b.load(data, typ=I64), b.add(home, word(8 * page)))
            wrong = b.or_(wrong, b.or_(other_tag, other_page))
        elsewhere = self.unlikely(wrong, "elsewhere")
        b.branch(fine)
        b.position_at_end(elsewhere)
        self._exit(Exit.ELSEWHERE, word(0), b.add(self.home, self._of_entry(lambda entry: entry)), 0)
        b.position_at_end(fine)

    # What is a value of the region

    def _load_registers(self) -> None:
        """Give each register that the region names a place of its own, which LLVM makes a value of."""
        b = self.b
        files: dict[tuple[str, int], None] = {}
        changed: dict[tuple[str, int], None] = {}
        named: dict[str, None] = {}
        self._bits = dict(self._bit_registers())
        for site in self.region.sites.values():
            assert site.program is not None
            for s in site.program.statements():
                if s.op in ("read_file", "write_file"):
                    number = site.constant(s.args[0])
                    assert number is not None, "a register whose number is not in the instruction"
                    files[str(s.detail), number] = None
                    if s.op == "write_file":
                        changed[str(s.detail), number] = None
                elif s.op == "set" and s.detail not in _ADDRESSES and s.detail not in self._bits:
                    named[str(s.detail)] = None
        self._files = {key: b.alloca(ir.IntType(FILES[key[0]].width)) for key in files}
        places = {name: b.alloca(I64) for name in named}
        self._changed = list(changed)
        #: Values of registers kept bit by bit, which are made only if something needs them: the register, and
        #: its version then.
        self._deferred: dict[int, tuple[BitRegister, int]] = {}
        for key, place in self._files.items():
            b.store(self._file_load(key), place)
        for name, place in places.items():
            b.store(self.read(name), place)
        self._named = places

    def _bit_registers(self) -> Iterator[tuple[str, BitRegister]]:
        """The registers that are kept bit by bit, by their names."""
        for name in bit_registers.NAMES:
            ones = bit_registers.changed(self.region.sites.values(), name)
            if ones.bit_count() <= _MOST_BITS:
                yield name, BitRegister(self.b, name, ones, super().read(name))

    def _file_place(self, key: tuple[str, int]) -> ir.Value:
        file = FILES[key[0]]
        return self.at(self.state, OFFSETS[file_field(file)] + (key[1] * file.width // 8))

    def _file_load(self, key: tuple[str, int]) -> ir.Value:
        loaded = self.b.load(self._file_place(key), typ=ir.IntType(FILES[key[0]].width))
        loaded.align = 8
        return loaded

    def _store_registers(self) -> None:
        b = self.b
        for key in self._changed:
            value = b.load(self._files[key], typ=ir.IntType(FILES[key[0]].width))
            b.store(value, self._file_place(key)).align = 8
        for name, place in self._named.items():
            super().write(name, b.load(place, typ=I64))
        for name, register in self._bits.items():
            if register.changes:
                super().write(name, register.whole())

    def register(self, file: RegisterFile, number: ir.Value) -> ir.Value:
        """The place of a register of a file; its number is known."""
        return self._files[file.name, int(number.constant)]

    def read(self, name: str, width: int = 64) -> ir.Value:
        """A field of the state."""
        place = self._named.get(name)
        if place is None:
            return super().read(name, width)
        whole = self.b.load(place, typ=I64)
        return whole if width == I64.width else self.b.trunc(whole, ir.IntType(width))

    def write(self, name: str, value: ir.Value) -> None:
        """Set a field of the state, zero-extended to its 64 bits."""
        place = self._named.get(name)
        if place is None:
            super().write(name, value)
        else:
            self.b.store(value if value.type == I64 else self.b.zext(value, I64), place)

    def statement(self, v: Value) -> None:
        """Do one statement; a value that the instruction determines is a constant."""
        self._present = v
        if self.is_hosted(v):
            return
        known = None if self.lanes else self.site.constant(v)
        if known is not None:
            self.values[id(v)] = ir.Constant(ir.IntType(v.width), known)
        elif self.lanes or not self._bit_statement(v):
            self.by_operation(v)

    def value(self, value: Value) -> ir.Value:
        """The LLVM value of a traced one."""
        deferred = self._deferred.pop(id(value), None)
        if deferred is not None:
            register, version = deferred
            assert version == register.version, "the register was written in between"
            if bit_registers.is_read(value):
                self.values[id(value)] = register.read()
            else:
                self.by_operation(value)
        return super().value(value)

    def _bit_statement(self, v: Value) -> bool:
        """Do a statement about a register that is kept bit by bit; False if that is not possible."""
        read = _whole(v)
        register = None if read is None else self._bits.get(str(read.detail))
        if register is None:
            return False
        if v.op == "set":
            found = bit_registers.replaced(self.site, v.args[0])
            if found is None or found[0] != v.detail:
                register.replace(register.all, self.value(v.args[0]))
            else:
                register.replace(found[1], self.value(found[2]))
            return True
        if v.op == "extract":
            shift = self._shift(v.args[0])
            if shift is None:
                return False
            assert isinstance(v.detail, int)
            self.values[id(v)] = register.part(shift + v.detail, v.width)
            return True
        if v.op in ("lshr", "and") and self.site.constant(v.args[1]) is None:
            return False
        if v.op == "or" and bit_registers.replaced(self.site, v) is None:
            return False
        self._deferred[id(v)] = register, register.version
        return True

    def _shift(self, v: Value) -> int | None:
        """By how many bits a register that was read is shifted; None if the value is no such register."""
        if bit_registers.is_read(v):
            return 0
        is_shifted = v.op == "lshr" and bit_registers.is_read(v.args[0]) and id(v) in self._deferred
        return self.site.constant(v.args[1]) if is_shifted else None

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
        parts = {
            "way": word(_WAYS[exit]),
            "why": word(why) if isinstance(why, Left) else why,
            "address": address,
            "budget": self._budget(done),
        }
        for part, value in parts.items():
            b.store(value, self.exit[part])
        b.branch(self.exit_block)

    def _taken(self, exit: Exit, why: Left | ir.Value) -> None:
        """The code that follows leaves the region in this way. Tests count how often that happens."""

    def _go_to(self, offset: int, done: int) -> None:
        """Go on at an instruction of the page, in the region or outside."""
        block = self.blocks.get(offset)
        if block is None:
            self._exit(Exit.OUTSIDE, word(0), self._address_of(offset), done)
            return
        self.b.store(self._budget(done), self.budget_at)
        self.b.branch(block)

    def _begins_block(self, offset: int) -> bool:
        """Whether control comes to an instruction of the region by more than the instruction before."""
        region = self.region
        before = region.sites.get(offset - 4)
        return (
            offset in region.entries
            or offset in region.returns
            or before is None
            or bool(before.jumps)
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
        """The instructions of the block that begins at an offset."""
        site: Site | None = self.region.sites[offset]
        while site is not None:
            yield site
            offset += 4
            site = None if site.jumps or offset in self.blocks else self.region.sites.get(offset)

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
        if not site.jumps:
            self.done += 1
            return True
        done = self.done + 1
        if site.falls:
            jumps, falls = self.block_named("jumps"), self.block_named("falls")
            self.b.cbranch(self.b.load(self.jumped, typ=I1), jumps, falls)
            self.b.position_at_end(falls)
            self._go_to(site.offset + 4, done)
            self.b.position_at_end(jumps)
        if site.targets:
            self._go_to(site.targets[0], done)
        else:
            self._jump_by_register(done)
        return False

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

    def _define_exit(self) -> None:
        b = self.b
        b.position_at_end(self.exit_block)
        self._store_registers()
        way, why, address, budget = (b.load(place, typ=I64) for place in self.exit.values())
        done = b.sub(self.function.args[3], budget)
        self.write("done_in_regions", b.add(self.read("done_in_regions"), done))
        leaves, jumps = self.block_named("leaves"), self.block_named("jumps")
        b.cbranch(b.icmp_unsigned("==", way, word(_Way.LEAVE)), leaves, jumps)
        b.position_at_end(leaves)
        self._return(why, address, budget)
        b.position_at_end(jumps)
        record, missing = self._record_of(address)
        # Records that were made since the region was put in have no other handler.
        plain = b.load(self.at(record, RECORD_PLAIN), typ=I64)
        wanted = b.icmp_unsigned("==", way, word(_Way.PLAIN))
        has = b.and_(wanted, b.icmp_unsigned("!=", plain, word(0)))
        # Read once: another thread may be taking the region out.
        present = b.load(self.at(record, RECORD_HANDLER), typ=I64)
        handler = b.inttoptr(b.select(has, plain, present), HANDLER_POINTER)
        arguments = [self.state, record, self.memory, budget]
        b.ret(b.call(handler, arguments, cconv="tailcc", tail="musttail"))
        b.position_at_end(missing)
        self._taken(Exit.UNDECODED, Left.FETCH)
        self._return(word(Left.FETCH), address, budget)

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
        super(Lowering, self).write("CIA", address)
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
