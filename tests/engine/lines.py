"""Lines of code for all that a guest has decoded: in a guest that runs for long, samples decide."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.block_code import block_code
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import LINES_AT, PAGE_BLOCKS, PAGE_SHIFT
from chronovisor.engine.native.library import HandlerLibrary
from chronovisor.engine.native.line_links import LineTable
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.state import CACHE_BLOCK


def put_in_lines(engine: ConcreteEngine) -> None:
    """Have each block that is decoded run as a line."""
    assert isinstance(engine, NativeEngine)
    for pages in engine._pages.values():
        await_stencils(pages.library)
        for page in list(pages._records):
            for offset in range(0, 1 << PAGE_SHIFT, CACHE_BLOCK):
                pages.assemble(page, offset)
        engine._retire(pages.take_replaced())


def await_stencils(library: HandlerLibrary) -> None:
    """Wait for the stencils of 64-bit mode, if the package does not bring them. Few run in 32-bit mode."""
    end = time.monotonic() + 300
    while library.mode[0] and block_code(library) is None:
        assert time.monotonic() < end, "no stencils"
        time.sleep(0.05)


def instructions_in_lines(engine: ConcreteEngine) -> int:
    """How many instructions have code in lines."""
    assert isinstance(engine, NativeEngine)
    return sum(_in_lines(records) for pages in engine._pages.values() for records in pages._records.values())


def _tables(records: Records) -> Iterator[LineTable]:
    """The tables of a page's lines."""
    addresses = records[LINES_AT // 8 : LINES_AT // 8 + PAGE_BLOCKS]
    return (LineTable.from_address(at) for at in addresses if at)


def _in_lines(records: Records) -> int:
    return sum(code != 0 for table in _tables(records) for code in table.code)


def links(records: Records) -> list[tuple[int, int]]:
    """The links of a page's lines: the number of each one's target, and how far its jump leads, in bytes."""
    found = []
    for table in _tables(records):
        for link in table.links[: table.count]:
            place = ctypes.addressof(table) - link.distance
            found.append((link.target, ctypes.c_int32.from_address(place).value))
    return found
