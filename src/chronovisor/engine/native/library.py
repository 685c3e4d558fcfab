"""Compiled handlers, loaded: the addresses that instruction records hold."""

from __future__ import annotations

import ctypes
import threading
from functools import cache

from llvmlite import binding as llvm

from chronovisor.engine.native import compiler
from chronovisor.engine.native.code_cache import fetch
from chronovisor.engine.native.compiler import Key, Mode
from chronovisor.engine.native.lowering import is_native
from chronovisor.isa.instruction import INSTRUCTIONS

Enter = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
Blank = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64)

_SYMBOLS = tuple(f"chronovisor_{name}" for name in ("now", "enter", "slow", "next_page", "blank"))

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
        self.next_page_address: int = self._library["chronovisor_next_page"]
        #: Makes records that wait to be decoded.
        self.blank = Blank(self._library["chronovisor_blank"])
        #: Runs a thread; without the interpreter's lock.
        self.enter = Enter(self._library["chronovisor_enter"])

    def load(self, name: str, code: bytes, symbols: list[str]) -> dict[str, int]:
        """Link an object file; the addresses of its symbols. It stays as long as the process."""
        builder = llvm.JITLibraryBuilder().add_object_img(code)
        builder.import_symbol("chronovisor_now", self.now_address)
        for symbol in symbols:
            builder.export_symbol(symbol)
        library = builder.link(self.jit, name)
        _kept.append(library)
        return {symbol: library[symbol] for symbol in symbols}


_kept: list[object] = []


@cache
def runtime() -> Runtime:
    """The process's one runtime."""
    return Runtime()


@cache
def handlers(mode: Mode) -> dict[Key, int]:
    """The addresses of the handlers of a machine mode, compiled at the first start on a machine."""
    with _lock:
        keys = {
            compiler.symbol((i, numbers)): (i, numbers)
            for i in INSTRUCTIONS
            for numbers in compiler.statics(i)
            if is_native(i.program(numbers, *mode))
        }
        name = f"handlers-{'64' if mode[0] else '32'}{'le' if mode[1] else 'be'}"
        code = fetch(
            name,
            compiler.fingerprint(),
            lambda: compiler.compile_module(compiler.handlers_module(compiler.common_set(mode), mode[1])),
        )
        addresses = runtime().load(name, code, list(keys))
    return {keys[symbol]: address for symbol, address in addresses.items()}
