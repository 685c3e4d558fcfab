"""The code of blocks that handlers execute often, put together from stencils: see ``stencils``.

It is made in microseconds, while a region takes tens of milliseconds, and it is faster than handlers. So a
block gets it as soon as a sample finds a thread there.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from itertools import groupby

from chronovisor.engine.native import code_cache, compile_server, compiler
from chronovisor.engine.native.assembling import Book, Known
from chronovisor.engine.native.block_decoder import BLOCK_INSTRUCTIONS, slot_of
from chronovisor.engine.native.compile_service import Urgency
from chronovisor.engine.native.library import HandlerLibrary, service
from chronovisor.engine.native.line_code import END_SIZE, PIECES_SIZE
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import Key
from chronovisor.engine.native.sets import everyday_keys, stencils_name
from chronovisor.engine.native.stencil_tables import (
    ANY_RECORD,
    ANY_VALUE,
    MOST_BYTES,
    Row,
    Stencil,
    StencilSet,
)
from chronovisor.engine.statistics import HANDLERS

#: The most bytes that the code of a block takes.
MOST_BLOCK_BYTES = BLOCK_INSTRUCTIONS * (MOST_BYTES + PIECES_SIZE) + END_SIZE


class BlockCode:
    """What is needed to put the code of blocks together, in a machine mode."""

    def __init__(self, library: HandlerLibrary, stencils: StencilSet) -> None:
        self._stencils = stencils
        self._lists: list[ctypes.Array[ctypes.c_uint64]] = []
        found = list(self._known(library))
        count = 1 << (2 * len(found)).bit_length()
        self._table = (Known * count)()
        for one in found:
            place = slot_of(one.handler, count)
            while self._table[place].handler:
                place = (place + 1) % count
            self._table[place] = one
        #: What native code puts lines together with; it stays as long as this object.
        self.book = Book(
            *(ctypes.addressof(self._table), count - 1),
            *(ctypes.addressof(stencils.patches), ctypes.addressof(stencils.code)),
        )

    def _known(self, library: HandlerLibrary) -> Iterator[Known]:
        """The handlers that have stencils."""
        keys, first = everyday_keys(), ctypes.addressof(self._stencils.stencils)
        firsts: dict[Key, list[int]] = {}
        for pair, handler in library.pairs:
            firsts.setdefault(pair.first, []).append(handler)

        def kind(numbered: tuple[int, Row]) -> tuple[int, int]:
            return numbered[1].key, numbered[1].near

        for (number, near), group in groupby(enumerate(self._stencils.rows), kind):
            rows = [(row, first + place * ctypes.sizeof(Stencil)) for place, row in group]
            if (handlers := library.handlers.get(keys[number])) is None:
                continue
            (place, *_), stencil = {row.place for row, _ in rows}, rows[0][1]
            if place != ANY_RECORD:
                # Of several for a number, the first one is tried first.
                first_ones = {row.value: at for row, at in reversed(rows)}
                others = first_ones.pop(ANY_VALUE, 0)
                by_value = (ctypes.c_uint64 * (1 << 8))(*[others] * (1 << 8))
                for value, at in first_ones.items():
                    by_value[value] = at
                self._lists.append(by_value)
                stencil = ctypes.addressof(by_value)
            yield Known(handlers.near if near else handlers.far, place, stencil)
            if not near:
                # The code of the second follows.
                yield from (Known(handler, place, stencil) for handler in firsts.get(keys[number], ()))


_made: dict[Mode, BlockCode | None] = {}
_making = threading.Lock()


def block_code(library: HandlerLibrary) -> BlockCode | None:
    """What puts blocks together in a library's mode; None as long as the stencils are not compiled.

    32-bit mode has no stencils: guests execute few instructions in it.
    """
    if not library.mode[0]:
        return None
    with _making:
        if library.mode not in _made:
            if not library.has_pairs:
                return None
            _made[library.mode] = _load(library)
        return _made[library.mode]


def _load(library: HandlerLibrary) -> BlockCode | None:
    name, fingerprint = stencils_name(library.mode), compiler.fingerprint()
    code = code_cache.kept(name, fingerprint)
    if code is not None:
        HANDLERS.add_kept(1)
        return BlockCode(library, StencilSet.decode(code))

    def take(code: bytes | None) -> None:
        if code is None:
            return
        HANDLERS.add_compiled(1)
        with _making:
            _made[library.mode] = BlockCode(library, StencilSet.decode(code))
        with compiler.FINISHING:
            code_cache.keep(name, fingerprint, code)

    service().ask(compile_server.stencils_request(library.mode), take, Urgency.LATER)
    return None
