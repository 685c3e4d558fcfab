"""Compiled handlers, loaded: the addresses that instruction records hold."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from llvmlite import binding as llvm

from chronovisor.engine.native import compiler
from chronovisor.engine.native.code_cache import fetch
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import Key, Pair, pairs

Enter = ctypes.CFUNCTYPE(ctypes.c_int64)
Blank = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
Retire = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_SYMBOLS = tuple(
    f"chronovisor_{name}" for name in ("now", "enter", "slow", "undecoded", "again", "blank", "retire")
)

_lock = threading.Lock()


class Runtime:
    """The process's just-in-time linker, with the functions beside the handlers."""

    def __init__(self) -> None:
        self.jit = llvm.create_lljit_compiler(compiler.target(), use_jit_link=False)
        code = fetch(
            "runtime", compiler.fingerprint(), lambda: compiler.compile_module(compiler.runtime_module())
        )
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for name in _SYMBOLS:
            builder.export_symbol(name)
        self._library = builder.link(self.jit, "runtime")
        self.now_address: int = self._library["chronovisor_now"]
        self.slow_address: int = self._library["chronovisor_slow"]
        self.undecoded_address: int = self._library["chronovisor_undecoded"]
        #: Makes records that wait to be decoded.
        self.blank = Blank(self._library["chronovisor_blank"])
        #: Has those who execute a page's records look the page up again.
        self.retire = Retire(self._library["chronovisor_retire"])
        #: Runs a thread; without the interpreter's lock.
        self.enter = Enter(self._library["chronovisor_enter"])

    def load(self, name: str, code: bytes, symbol: str) -> int:
        """Link an object file; the address of a symbol of it. It stays as long as the process."""
        builder = llvm.JITLibraryBuilder().add_object_img(code)
        builder.export_symbol(symbol)
        library = builder.link(self.jit, name)
        _kept.append(library)
        return int(library[symbol])


_kept: list[object] = []


@cache
def runtime() -> Runtime:
    """The process's one runtime."""
    return Runtime()


#: Equal copies of the handlers, each at its own addresses; an instruction gets one by its place. Processors
#: predict best where a handler goes on if it does not go on at many places.
COPIES = 8
_PAGE = 1 << 12
_STAGGER = _PAGE + 64


#: The addresses of a handler's copies.
Copies = tuple[int, ...]


@dataclass(frozen=True)
class Handlers:
    """The handlers of a machine mode: of instructions, of jumps within a page, of pairs by their halves."""

    far: dict[Key, Copies]
    near: dict[Key, Copies]
    pairs: dict[tuple[Key, Key], list[tuple[Pair, Copies]]]


@cache
def handlers(mode: Mode) -> Handlers:
    """The handlers of a machine mode, compiled at the first start on a machine."""
    keys, together = compiler.common_set(), pairs()
    with _lock:
        name = f"handlers-{'64' if mode[0] else '32'}{'le' if mode[1] else 'be'}"
        code = fetch(
            name,
            compiler.fingerprint(),
            lambda: compiler.compile_handlers(keys, together, mode),
        )
        table = runtime().load(name, code, compiler.TABLE)
    entries = (ctypes.c_uint64 * (2 * len(keys) + len(together) + 2)).from_address(table)
    begin, *addresses, end = entries
    places = _copies(begin, end)

    def copies(address: int) -> Copies:
        return tuple(address - begin + place for place in places)

    def found(some: Iterable[int]) -> dict[Key, Copies]:
        return {key: copies(at) for key, at in zip(keys, some, strict=True) if at}

    split = 2 * len(keys)
    by_halves: dict[tuple[Key, Key], list[tuple[Pair, Copies]]] = {}
    for pair, at in zip(together, addresses[split:], strict=True):
        by_halves.setdefault((pair.first, pair.second), []).append((pair, copies(at)))
    return Handlers(found(addresses[:split:2]), found(addresses[1:split:2]), by_halves)


def _copies(begin: int, end: int) -> list[int]:
    """Copy machine code to other places, which it can be as it names no address: where each copy begins.

    Branch predictors look branches up by some bits of their addresses: the copies' are not all alike.
    """
    distance = -(-(end - begin) // _PAGE) * _PAGE + _STAGGER
    pages = mmap.mmap(-1, COPIES * distance, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code = ctypes.string_at(begin, end - begin)
    for n in range(COPIES):
        pages[n * distance : n * distance + len(code)] = code
    _kept.append(pages)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    return [start + n * distance for n in range(COPIES)]
