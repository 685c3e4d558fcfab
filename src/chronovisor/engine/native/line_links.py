"""Direct jumps from line to line within a page: see ``assembling``.

Behind the code of each line is a table of where its instructions are and of its *links*: jumps that lead to
an instruction of the page. A link leads to that instruction's code in a line if there is some and no region
begins there. Otherwise it leads to the code right behind the jump, which goes by the record. So a line is
linked when it is made, and links to an instruction are undone if a region begins there.

Threads may be executing a link while its four bytes, which are aligned, change in one step: they go one way
or the other. A page that has changed gets other records and lines. Threads that are in the old lines come to
a record within the piece of their run, or at once if they synchronize with the change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from llvmlite import ir

from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS
from chronovisor.engine.native.emitter import I16, I32, I64, POINTER, VOID, Emitter, word
from chronovisor.engine.native.layout import LINES_AT, PAGE_BLOCKS, PLAIN_AT

#: A link for each instruction, and one for what is behind the line.
_MOST_LINKS = BLOCK_INSTRUCTIONS + 1


class Link(ctypes.Structure):
    """How far a jump's distance is before the table, in bytes, and its target's number in the page."""

    _fields_ = [("distance", ctypes.c_uint16), ("target", ctypes.c_uint16)]


class LineTable(ctypes.Structure):
    """How far before the table the code of each instruction is in the line, or 0; and the line's links."""

    _fields_ = [
        ("code", ctypes.c_uint16 * BLOCK_INSTRUCTIONS),
        ("count", ctypes.c_uint32),
        ("links", Link * _MOST_LINKS),
    ]


TABLE_SIZE: Final = ctypes.sizeof(LineTable)


def _block_of(e: Emitter, number: ir.Value) -> ir.Value:
    return e.b.udiv(number, word(BLOCK_INSTRUCTIONS))


def table_place(e: Emitter, records: ir.Value, block: ir.Value) -> ir.Value:
    """The place in a page's records for the address of the table of a block's line: 0 if it has no line."""
    return e.at(e.at(records, LINES_AT), e.b.shl(block, word(3)))


def _half(e: Emitter, base: ir.Value, offset: int, number: ir.Value, step: int) -> ir.Value:
    """A number of 16 bits of an array."""
    place = e.at(e.at(base, offset), e.b.mul(number, word(step)))
    return e.b.zext(e.b.load(place, typ=I16), I64)


@contextmanager
def _each_link(e: Emitter, records: ir.Value) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """Do what is inside for each link of a page: its block, its target, and where its four bytes are."""
    b = e.b
    with e.each(word(PAGE_BLOCKS)) as block:
        at = b.load(table_place(e, records, block), typ=I64)
        with e.if_(b.icmp_unsigned("!=", at, word(0))):
            table = b.inttoptr(at, POINTER)
            count = b.zext(b.load(e.at(table, LineTable.count.offset), typ=I32), I64)
            with e.each(count) as number:
                distance, target = (
                    _half(e, table, LineTable.links.offset + part, number, ctypes.sizeof(Link))
                    for part in (Link.distance.offset, Link.target.offset)
                )
                yield block, target, b.inttoptr(b.sub(at, distance), POINTER)


def link(e: Emitter, records: ir.Value, made: ir.Value) -> None:
    """Link a line that was made, of the block of this number, and those that lead to it."""
    b = e.b
    with _each_link(e, records) as (block, target, place):
        other = _block_of(e, target)
        concerned = b.or_(b.icmp_unsigned("==", block, made), b.icmp_unsigned("==", other, made))
        at = b.load(table_place(e, records, other), typ=I64)
        with e.if_(b.and_(concerned, b.icmp_unsigned("!=", at, word(0)))):
            table, within = b.inttoptr(at, POINTER), b.urem(target, word(BLOCK_INSTRUCTIONS))
            code = _half(e, table, LineTable.code.offset, within, ctypes.sizeof(ctypes.c_uint16))
            own_handler = b.load(e.at(e.at(records, PLAIN_AT), b.shl(target, word(3))), typ=I64)
            begins_region = b.icmp_unsigned("!=", own_handler, word(0))
            with e.if_(b.and_(b.icmp_unsigned("!=", code, word(0)), b.not_(begins_region))):
                behind = b.add(b.ptrtoint(place, I64), word(4))
                b.store(b.trunc(b.sub(b.sub(at, code), behind), I32), place)


def define_unlink(module: ir.Module) -> None:
    """Define ``unlink(records, number)``: have links to an instruction of a page lead to its record.

    The caller has the lock of the mode's records.
    """
    kind = ir.FunctionType(VOID, [POINTER, I64])
    e = Emitter(ir.Function(module, kind, "chronovisor_unlink"), {})
    records, number = e.function.args
    with (
        _each_link(e, records) as (_, target, place),
        e.if_(e.b.icmp_unsigned("==", target, number)),
    ):
        e.b.store(ir.Constant(I32, 0), place)
    e.b.ret_void()


class Links:
    """The links of a line that is being made."""

    def __init__(self, e: Emitter) -> None:
        self._e, b = e, e.b
        #: The address of each link's four bytes, and its target.
        self._places, self._targets = (b.alloca(I64, size=_MOST_LINKS) for _ in range(2))
        self._count = b.alloca(I64)
        b.store(word(0), self._count)

    def add(self, place: ir.Value, target: ir.Value) -> None:
        """Note one: the address of its four bytes, and its target's number in the page."""
        b, count = self._e.b, self._e.b.load(self._count, typ=I64)
        for array, value in ((self._places, place), (self._targets, target)):
            b.store(value, self._element(array, count))
        b.store(b.add(count, word(1)), self._count)

    def put_table(self, at: ir.Value, code: ir.Value) -> ir.Value:
        """Put the line's table at an address, behind the line; return the address behind the table.

        The array has the addresses of the instructions' code, or 0.
        """
        e, b = self._e, self._e.b
        table = b.inttoptr(at, POINTER)
        with e.each(word(BLOCK_INSTRUCTIONS)) as number:
            address = b.load(self._element(code, number), typ=I64)
            there = b.icmp_unsigned("!=", address, word(0))
            distance = b.select(there, b.sub(at, address), word(0))
            self._put(table, LineTable.code.offset, number, ctypes.sizeof(ctypes.c_uint16), distance)
        count = b.load(self._count, typ=I64)
        b.store(b.trunc(count, I32), e.at(table, LineTable.count.offset))
        with e.each(count) as number:
            place, target = (
                b.load(self._element(array, number), typ=I64) for array in (self._places, self._targets)
            )
            for field, value in ((Link.distance, b.sub(at, place)), (Link.target, target)):
                self._put(table, LineTable.links.offset + field.offset, number, ctypes.sizeof(Link), value)
        return b.add(at, b.add(word(LineTable.links.offset), b.mul(count, word(ctypes.sizeof(Link)))))

    def _element(self, array: ir.Value, number: ir.Value) -> ir.Value:
        return self._e.at(array, self._e.b.shl(number, word(3)))

    def _put(self, table: ir.Value, offset: int, number: ir.Value, step: int, value: ir.Value) -> None:
        """Set a number of 16 bits of an array."""
        b, place = self._e.b, self._e.at(table, offset)
        b.store(b.trunc(value, I16), self._e.at(place, b.mul(number, word(step))))
