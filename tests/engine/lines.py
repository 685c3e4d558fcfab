"""Lines of code for all that a guest has decoded: in a guest that runs for long, samples decide."""

from __future__ import annotations

import time

from chronovisor.engine.concrete import ConcreteEngine
from chronovisor.engine.native.block_code import block_code
from chronovisor.engine.native.code_space import CHUNK
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.layout import PAGE_INSTRUCTIONS, PAGE_SHIFT, RECORD_SIZE
from chronovisor.engine.native.library import HandlerLibrary
from chronovisor.engine.native.page_records import Records
from chronovisor.engine.native.pages import DecodedPages
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
    """How many records lead to a line."""
    assert isinstance(engine, NativeEngine)
    return sum(
        _lead_to_lines(pages, records)
        for pages in engine._pages.values()
        for records in pages._records.values()
    )


def _lead_to_lines(pages: DecodedPages, records: Records) -> int:
    begins = [chunk._at for chunk in (*records.chunks, pages.lines.present) if chunk is not None]
    handlers = records[: PAGE_INSTRUCTIONS * RECORD_SIZE // 8 : RECORD_SIZE // 8]
    return sum(any(begin <= handler < begin + CHUNK for begin in begins) for handler in handlers)
