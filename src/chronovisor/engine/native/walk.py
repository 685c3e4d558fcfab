"""The walk of a guest's page tables as native code: what a TLB that lacks a page is filled by.

The walk is the program of ``chronovisor.isa.radix``. A fault enters its interrupt, or is left to others.
"""

from __future__ import annotations

from llvmlite import ir

from chronovisor.engine.native.emitter import (
    CHANGED,
    FAULTED,
    I1,
    I8,
    I64,
    NOT_TRANSLATED,
    POINTER,
    TRANSLATE,
    Row,
    ThreadEmitter,
    word,
)
from chronovisor.engine.native.layout import (
    DATA_USES,
    PAGE_SHIFT,
    TLB_ENTRIES,
    TLB_GROUP,
    TLB_INVALID,
    WATCHED_LOADS,
    WATCHED_STORES,
    WAYS,
    Tlb,
)
from chronovisor.engine.native.pure_operations import PURE_ROWS
from chronovisor.engine.state import REAL_MODE_MASK
from chronovisor.isa.bits import LPCR, MSR
from chronovisor.isa.interrupts import INTERRUPT_NUMBERS
from chronovisor.isa.radix import Access, translation
from chronovisor.isa.values import Value

_WATCHED = {Access.LOAD: WATCHED_LOADS, Access.STORE: WATCHED_STORES}


class _Walk(ThreadEmitter):
    """One translation in the making."""

    def __init__(
        self, module: ir.Module, access: Access, interrupt: ir.Function | None, content: ir.Function
    ) -> None:
        kind = "walk" if interrupt is None else "translate"
        super().__init__(module, TRANSLATE, f"chronovisor_{kind}_{access.value}", _ROWS)
        self.interrupt = interrupt
        self.content = content
        self.function.attributes.add("nounwind")
        self.access = access
        self.ea = self.function.args[1]
        self.tlb = self.present_tlb()
        self.generation = self._generation()
        b = self.b
        if access is not Access.FETCH:
            self._return_if_second()
        on, off = self.block_named("on"), self.block_named("off")
        enabled = b.and_(self.read("MSR"), word(int(MSR.IR if access is Access.FETCH else MSR.DR)))
        b.cbranch(b.icmp_unsigned("!=", enabled, word(0)), on, off)
        b.position_at_end(off)
        self.found(b.and_(self.ea, word(REAL_MODE_MASK)), ir.Constant(I1, 1))
        b.position_at_end(on)
        hashed = b.icmp_unsigned("==", b.and_(self.read("LPCR"), word(int(LPCR.HR))), word(0))
        with self.elsewhere(self.unlikely(hashed, "hashed")):
            self.fail()
        program = translation(access)
        self.values = {id(v): self.ea for v in program.statements() if v.op == "operand"}
        self.block(program.body)

    def statement(self, v: Value) -> None:
        """Do one statement."""
        if v.op != "operand":
            super().statement(v)

    def _generation(self) -> ir.Value:
        counter = self.b.load_atomic(self.at(self.tlb, Tlb.generation.offset), "seq_cst", 8, typ=I64)
        return counter

    def fail(self) -> None:
        """Return without a translation."""
        self.b.ret(word(NOT_TRANSLATED))

    def return_if_changed(self, number: ir.Value) -> None:
        """Return without a translation if the page does not hold what it did when a fetch was last led to it.

        What was decoded of it may be old. A guest does not say so by `icbi` if it knows that its processor's
        instruction caches see stores, as a POWER9's do: Linux writes a program into a page that held another
        one, and then maps it.
        """
        b = self.b
        slot = self.at(b.inttoptr(self.read("page_contents"), POINTER), b.shl(number, word(3)))
        now = b.call(self.content, [self.memory_at(b.shl(number, word(PAGE_SHIFT)))])
        before = b.load(slot, typ=I64)
        changed = b.and_(b.icmp_unsigned("!=", before, word(0)), b.icmp_unsigned("!=", before, now))
        with self.elsewhere(self.unlikely(changed, "changed_page")):
            b.ret(word(CHANGED))
        b.store(now, slot)

    def watched(self, real: ir.Value) -> ir.Value:
        """The bits that say which accesses to a real page are watched."""
        b, found = self.b, self.b.alloca(I8)
        b.store(ir.Constant(I8, 0), found)
        table = self.read("watched_pages")
        with self.if_(b.icmp_unsigned("!=", table, word(0))):
            at = self.at(b.inttoptr(table, POINTER), b.lshr(real, word(PAGE_SHIFT)))
            b.store(b.load(at, typ=I8), found)
        return b.zext(b.load(found, typ=I8), I64)

    def _will_fill(self, page: ir.Value) -> None:
        """The effective page's entries are no longer known to be empty: see `Tlb`."""
        b, of = self.b, Tlb.empty_code if self.access is Access.FETCH else Tlb.empty_data
        field = self.at(self.tlb, of.offset)
        group = b.and_(b.lshr(page, word(TLB_GROUP.bit_length() - 1)), word(TLB_ENTRIES // TLB_GROUP - 1))
        b.store(b.and_(b.load(field, typ=I64), b.not_(b.shl(word(1), group))), field)

    def _ways(self, page: ir.Value) -> list[dict[str, ir.Value]]:
        """The addresses of the fields of a page's entries."""
        return [
            {use: self.tlb_entry(self.tlb, use, page, way)[0] for use in DATA_USES}
            | {"data": self.tlb_entry(self.tlb, "load", page, way)[1]}
            for way in range(WAYS)
        ]

    def _swap(self, ways: list[dict[str, ir.Value]]) -> None:
        """Exchange a page's entries."""
        first, second = ways
        with self.moving(self.tlb):
            for part in first:
                one, other = (self.b.load(way[part], typ=I64) for way in ways)
                self.b.store(other, first[part])
                self.b.store(one, second[part])

    def _return_if_second(self) -> None:
        """If the page is in its second entry, return its address and have it in the first one."""
        b, page = self.b, self.b.lshr(self.ea, word(PAGE_SHIFT))
        ways = self._ways(page)
        tag = b.load(ways[1][self.access.value], typ=I64)
        with self.elsewhere(self.unlikely(b.icmp_unsigned("==", tag, page), "second")):
            self._swap(ways)
            self._withdraw_if_late([way[use] for way in ways for use in DATA_USES])
            place = b.add(self.ea, b.load(ways[0]["data"], typ=I64))
            b.ret(b.sub(place, self.read("memory_at")))

    def _withdraw_if_late(self, tags: list[ir.Value]) -> None:
        """Forget entries and return without a translation if another thread has invalidated something since
        the walk began.
        """
        b = self.b
        b.fence("seq_cst")
        late = b.icmp_unsigned("!=", self._generation(), self.generation)
        with self.elsewhere(self.unlikely(late, "late")):
            for tag in tags:
                b.store(word(TLB_INVALID), tag)
            self.fail()

    def found(self, real: ir.Value, loads: ir.Value) -> None:
        """Keep the page in the TLB and return the real address, if there is memory at it.

        ``loads`` says whether the page may be loaded from.
        """
        b = self.b
        with self.elsewhere(self.unlikely(b.icmp_unsigned(">=", real, self.read("memory_size")), "nowhere")):
            self.fail()
        page = b.lshr(self.ea, word(PAGE_SHIFT))
        tags = (
            self._found_code(real, page)
            if self.access is Access.FETCH
            else self._found_data(real, page, loads)
        )
        self._withdraw_if_late(tags)
        b.ret(real)

    def _found_code(self, real: ir.Value, page: ir.Value) -> list[ir.Value]:
        """Keep a page of code; the addresses of its tags."""
        b, number = self.b, self.b.lshr(real, word(PAGE_SHIFT))
        self.write("fetched", real)
        self.return_if_changed(number)
        tag, data = self.tlb_entry(self.tlb, "fetch", page)
        self._will_fill(page)
        b.store(b.add(self.read("page_table"), b.shl(number, word(3))), data)
        b.store(page, tag)
        return [tag]

    def _found_data(self, real: ir.Value, page: ir.Value, loads: ir.Value) -> list[ir.Value]:
        """Keep a page of data, unless this access to it is watched; the addresses of its tags.

        The TLB never has a page for watched accesses: the concrete evaluator makes each of them.
        """
        b, watched = self.b, self.watched(real)
        with self.elsewhere(self.unlikely(self.any(watched, _WATCHED[self.access]), "watched")):
            self.fail()
        ways = self._ways(page)
        self._will_fill(page)
        first, distance = ways[0], b.sub(b.add(self.read("memory_at"), real), self.ea)
        with self.if_(b.icmp_unsigned("!=", b.load(first["data"], typ=I64), distance)):
            self._swap(ways)
            with self.if_(b.icmp_unsigned("!=", b.load(first["data"], typ=I64), distance)):
                # The tags are another page's. If the distance is the same, they hold whatever page they name.
                for use in DATA_USES:
                    b.store(word(TLB_INVALID), first[use])
                b.store(distance, first["data"])
        if self.access is Access.STORE:
            # Stores by this entry do not log their page: it is in the log before the first of them. Whoever
            # takes the log has the entry forgotten.
            self.log_page(real)
            with self.if_(b.and_(loads, b.not_(self.any(watched, WATCHED_LOADS)))):
                b.store(page, first["both"])
        b.store(page, first[self.access.value])
        return [way[use] for way in ways for use in DATA_USES]


def load_real(walk: ThreadEmitter, v: Value, address: ir.Value) -> ir.Value:
    """The big-endian doubleword at a real address, or 0 outside memory: then the first one of memory is read
    instead, and not used.
    """
    b = walk.b
    last = b.sub(walk.read("memory_size"), word(8))
    inside = b.icmp_unsigned("<=", address, last)
    loaded = b.load(walk.memory_at(b.select(inside, address, word(0))), typ=I64)
    loaded.align = 1
    return b.select(inside, b.bswap(loaded), word(0))


def _update_real(walk: _Walk, v: Value, address: ir.Value, old: ir.Value, new: ir.Value) -> None:
    b = walk.b
    pair = b.cmpxchg(walk.memory_at(address), b.bswap(old), b.bswap(new), "seq_cst", "seq_cst")
    failed = b.xor(b.extract_value(pair, 1), ir.Constant(ir.IntType(1), 1))
    with walk.elsewhere(walk.unlikely(failed, "changed")):
        walk.fail()
    walk.log_page(address)


def _translated(walk: _Walk, v: Value, real: ir.Value, size: ir.Value, loads: ir.Value) -> None:
    walk.found(real, loads)
    walk.ended = True


def _interrupt(walk: _Walk, v: Value, cause: ir.Value) -> None:
    walk.ended = True
    if walk.interrupt is None:
        walk.fail()
        return
    number = word(INTERRUPT_NUMBERS[str(v.detail)])
    entered = walk.b.call(walk.interrupt, [walk.state, number, cause])
    walk.b.ret(walk.b.select(entered, word(FAULTED), word(NOT_TRANSLATED)))


_ROWS: dict[str, Row] = {
    **PURE_ROWS,
    "get": lambda walk, v: walk.read(str(v.detail), v.width),
    # Only faults set registers.
    "set": lambda walk, v, a: walk.write(str(v.detail), a),
    "load_real": load_real,
    "update_real": _update_real,
    "translated": _translated,
    "interrupt": _interrupt,
}


def define_translate(
    module: ir.Module, access: Access, interrupt: ir.Function | None, content: ir.Function
) -> ir.Function:
    """Define ``translate_load``, ``translate_store`` or ``translate_fetch``: (state, ea) -> real address.

    CIA is the address of the instruction that makes the access. Without ``interrupt`` the function is
    ``walk_load`` and so on: it needs no CIA, and a fault is NOT_TRANSLATED.
    """
    return _Walk(module, access, interrupt, content).function
