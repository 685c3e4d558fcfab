"""Compiled handlers, loaded: the addresses that instruction records hold."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from llvmlite import binding as llvm
from llvmlite import ir

from chronovisor.engine.native import code_cache, compile_server, compiler, sets
from chronovisor.engine.native.code_space import code_space
from chronovisor.engine.native.compile_service import CompileService, Urgency
from chronovisor.engine.native.decode_table import DecodeTable, Handlers, Slots
from chronovisor.engine.native.layout import Decoding
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.operations import is_native
from chronovisor.engine.native.pairs import Key, Pair
from chronovisor.engine.native.sets import HandlerSet
from chronovisor.engine.native.state_layout import FINDINGS, finding_field
from chronovisor.engine.statistics import HANDLERS, NativeCode

Enter = ctypes.CFUNCTYPE(ctypes.c_int64)
#: What takes microseconds keeps Python's lock: another thread could have it for milliseconds.
Blank = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
AwaitPiece = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Adopt = ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
AskFlush = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
Content = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)
Retire = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
Unlink = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)
Exchange = ctypes.PYFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_char_p
)
ExchangeWord = ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
#: Keeps Python's lock: tables do not change meanwhile.
DecodeBlock = ctypes.PYFUNCTYPE(
    ctypes.c_int64,
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64),
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64),
)

PutLine = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)

_SYMBOLS = tuple(
    f"chronovisor_{name}"
    for name in (
        *("now", "enter", "slow", "undecoded", "again", "blank", "retire", "exchange", "exchange_word"),
        *(
            "translate_load",
            "translate_store",
            "translate_fetch",
            "adopt",
            "ask_flush",
            "await_piece",
            "content",
            "decode_block",
            "fill_nothing",
            "end_of_piece",
            "plain",
            "put_line",
            "unlink",
            "reach",
            *(finding_field(*kind) for kind in FINDINGS),
        ),
    )
)


class Runtime:
    """The process's just-in-time linker, with the functions beside the handlers."""

    def __init__(self) -> None:
        code = object_file("runtime", compiler.fingerprint(), compiler.runtime_module)
        begin = time.monotonic()
        with compiler.FINISHING:
            self.jit = llvm.create_lljit_compiler(compiler.target(), use_jit_link=False)
            builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
            for name in _SYMBOLS:
                builder.export_symbol(name)
            self._library = builder.link(self.jit, "runtime")
        HANDLERS.add_linked(len(code), time.monotonic() - begin)
        self.now_address: int = self._library["chronovisor_now"]
        self.reach_address: int = self._library["chronovisor_reach"]
        self.end_of_piece_address: int = self._library["chronovisor_end_of_piece"]
        self.plain_address: int = self._library["chronovisor_plain"]
        #: The functions that find pages for regions, by the fields of a thread's state for them.
        self.finding_addresses: dict[str, int] = {
            field: self._library[f"chronovisor_{field}"]
            for field in (finding_field(*kind) for kind in FINDINGS)
        }
        self.translate_load_address: int = self._library["chronovisor_translate_load"]
        self.translate_store_address: int = self._library["chronovisor_translate_store"]
        self.translate_fetch_address: int = self._library["chronovisor_translate_fetch"]
        #: Leaves an instruction to the concrete evaluator.
        self.slow = Handlers(self._library["chronovisor_slow"], 0, self._library["chronovisor_fill_nothing"])
        self.undecoded_address: int = self._library["chronovisor_undecoded"]
        #: Waits until a thread has begun a piece of its run, or is out; without the interpreter's lock.
        self.await_piece = AwaitPiece(self._library["chronovisor_await_piece"])
        #: Has a thread use the TLBs and decoded pages that its registers name; whether it can run natively.
        self.adopt = Adopt(self._library["chronovisor_adopt"])
        #: Has a thread empty its TLBs before it uses them again.
        self.ask_flush = AskFlush(self._library["chronovisor_ask_flush"])
        #: Makes records that wait to be decoded.
        self.blank = Blank(self._library["chronovisor_blank"])
        #: What a page's content is known by.
        self.content = Content(self._library["chronovisor_content"])
        #: Decodes a block of instructions.
        self.decode_block = DecodeBlock(self._library["chronovisor_decode_block"])
        #: Puts a line together for a block of a page.
        self.put_line = PutLine(self._library["chronovisor_put_line"])
        #: Has direct jumps to an instruction lead to its record.
        self.unlink = Unlink(self._library["chronovisor_unlink"])
        #: Has the threads that execute a page's records look the page up again.
        self.retire = Retire(self._library["chronovisor_retire"])
        #: Compares memory with one value and stores another if it is equal, in one step.
        self.exchange = Exchange(self._library["chronovisor_exchange"])
        #: The same for an aligned word of 64 bits.
        self.exchange_word = ExchangeWord(self._library["chronovisor_exchange_word"])
        #: Runs a thread; without the interpreter's lock.
        self.enter = Enter(self._library["chronovisor_enter"])

    def load(self, name: str, code: bytes, counter: NativeCode, *symbols: str) -> list[int]:
        """Link an object file; the addresses of symbols in it. The code stays as long as the process."""
        begin = time.monotonic()
        with compiler.FINISHING:
            builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
            for symbol in symbols:
                builder.export_symbol(symbol)
            library = builder.link(self.jit, f"{name}-{len(_kept)}")
            _kept.append(library)
            addresses = [int(library[symbol]) for symbol in symbols]
        counter.add_linked(len(code), time.monotonic() - begin)
        return addresses


def object_file(name: str, fingerprint: str, module: Callable[[], ir.Module]) -> bytes:
    """Machine code of a module of functions beside the handlers: from disk, else compiled now and kept."""
    is_kept = True

    def make() -> bytes:
        nonlocal is_kept
        is_kept, begin = False, time.monotonic()
        code = compiler.compile_module(module())
        HANDLERS.add_compiling(time.monotonic() - begin)
        return code

    code = code_cache.fetch(name, fingerprint, make)
    HANDLERS.add_kept(is_kept)
    HANDLERS.add_compiled(not is_kept)
    return code


_kept: list[object] = []


@cache
def runtime() -> Runtime:
    """The process's one runtime."""
    return Runtime()


#: Instructions that guests execute in a mode before its everyday handlers are compiled, if they started in
#: another mode. Linux calls firmware in a 32-bit mode: some thousand instructions in all.
FEW_INSTRUCTIONS = 1 << 14


@dataclass(frozen=True)
class _Loaded:
    """A loaded set: the handlers of instructions, and of pairs in their order."""

    handlers: dict[Key, Handlers]
    pairs: list[tuple[Pair, int]]


class RecordLock:
    """The lock of a mode's records, which native code takes too. A context; not to be taken twice.

    Native code has it for microseconds and waits for nothing meanwhile. If native code does not get the lock
    at once, it leaves the decoding to Python.
    """

    def __init__(self, decoding: Decoding) -> None:
        self._among_python = threading.Lock()
        self._decoding = decoding
        self._at = ctypes.addressof(decoding) + Decoding.lock.offset
        self._exchange = runtime().exchange_word

    def __enter__(self) -> None:
        self._among_python.acquire()
        while not self._exchange(self._at, 0, 1):
            os.sched_yield()

    def __exit__(self, *error: object) -> None:
        self._decoding.lock = 0
        self._among_python.release()


class HandlerLibrary:
    """The handlers of a machine mode that are loaded; it grows while guests run.

    ``generation`` changes when handlers arrive that were asked for earlier: records that were made without
    them are to be made anew.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.handlers: dict[Key, Handlers] = {}
        self.pairs: list[tuple[Pair, int]] = []
        self.generation = 0
        #: Whether native code is worth running: the everyday handlers are there.
        self.ready = False
        self.has_pairs = False
        self._asked: set[str] = set()
        self._failed: set[str] = set()
        self._changed = threading.Condition()
        self._loading_seldom = threading.Lock()
        self._seldom_are_there: bool | None = None
        """Whether the seldom used handlers were compiled ahead; None as long as no guest needed any."""
        self.table = self._new_table()
        """How words are decoded, with the handlers of this generation."""
        self.decoding = Decoding(swapped=not mode[1])
        """How native code decodes in this mode."""
        self.changing = RecordLock(self.decoding)
        """Taken to change records, tables of decoded pages and what native code decodes with."""
        self._told: tuple[DecodeTable, Slots] | None = None
        self._executed_slowly = 0
        #: The sets that every guest wants, as far as they are still to be compiled.
        self._to_compile = [one for one in (sets.everyday(mode), sets.paired(mode)) if not self._is_kept(one)]

    def _new_table(self) -> DecodeTable:
        return DecodeTable(self.find, self.pairs, runtime().slow)

    def tell(self) -> None:
        """Have native code decode with the present table. The caller has the lock ``changing``."""
        table, told = self.table, self.decoding
        # The slots stay as long as native code knows them.
        self._told = table, table.slots
        told.significant, told.complete = table.significant_at, self.has_pairs
        told.slots, told.slot_count = ctypes.addressof(table.slots), len(table.slots)

    def find(self, key: Key) -> tuple[Handlers | None, bool]:
        """An instruction's handlers, or None, and then whether they were asked for and may come later."""
        found = self.handlers.get(key)
        if found is None and self.want(key):
            found = self.handlers.get(key)
            return found, found is None
        return found, False

    def want(self, key: Key) -> bool:
        """Ask for an instruction's handler, which may be loaded already on return; False: none will come."""
        if key[0] not in sets.numbers() or not is_native(key[0].program(key[1], *self.mode)):
            return False
        if key in sets.seldom_keys() and self._has_seldom():
            return key in self.handlers
        return self._need(sets.single(key, self.mode))

    def _has_seldom(self) -> bool:
        """Load the seldom used handlers if they were compiled ahead; whether they were."""
        with self._loading_seldom:
            if self._seldom_are_there is None:
                self._seldom_are_there = self._is_kept(sets.seldom(self.mode))
            return self._seldom_are_there

    def need_everyday(self) -> None:
        """Have the everyday handlers and the pairs compiled, if that was not begun yet."""
        wanted, self._to_compile = self._to_compile, []
        for one in wanted:
            self._need(one)

    def executed_slowly(self, instructions: int) -> None:
        """Count instructions that were executed without the everyday handlers. After the first few of them
        the handlers are compiled.
        """
        self._executed_slowly += instructions
        if self._executed_slowly > FEW_INSTRUCTIONS and self._to_compile:
            self.need_everyday()

    def ensure(self, keys: Iterable[Key] = ()) -> None:
        """Wait until the everyday handlers, the pairs and these are loaded; RuntimeError if they fail."""
        self.need_everyday()
        there = self.handlers.keys() | set(sets.everyday_keys())
        missing = [key for key in keys if key not in there and is_native(key[0].program(key[1], *self.mode))]
        if missing:
            self._need(sets.several(missing, self.mode))
        with self._changed:
            self._changed.wait_for(lambda: not self._asked)
            if not (self.ready and self.has_pairs and all(key in self.handlers for key in missing)):
                raise RuntimeError("native code could not be compiled")

    def _need(self, wanted: HandlerSet) -> bool:
        """Have a set loaded: at once if it is on disk, else when it is compiled. False: it cannot be."""
        with self._changed:
            if wanted.name in self._failed:
                return False
            if wanted.name in self._asked:
                return True
            self._asked.add(wanted.name)
        if not self._is_kept(wanted):
            asked, take = compile_server.request(wanted), partial(self._take_late, wanted)
            urgency = _URGENCIES.get(wanted.name, Urgency.NOW)
            service().ask(asked, take, urgency, is_awaited=urgency > Urgency.NOW)
        return True

    def _is_kept(self, wanted: HandlerSet) -> bool:
        """Whether a set is on disk; it is loaded then."""
        code = code_cache.kept(wanted.file_name, compiler.fingerprint())
        if code is not None:
            HANDLERS.add_kept(1)
            self._take(wanted, code)
        return code is not None

    def _take_late(self, wanted: HandlerSet, code: bytes | None) -> None:
        """Take over a set that was compiled while guests ran; None: it cannot be compiled."""
        if code is None:
            with self._changed:
                self._asked.discard(wanted.name)
                self._failed.add(wanted.name)
                self._changed.notify_all()
            return
        HANDLERS.add_compiled(1)
        self._take(wanted, code)
        # The table comes before the generation: `DecodedPages.refresh` sees the generation, then decodes anew
        # what was decoded with an older table.
        self.table = self._new_table()
        self.generation += 1
        # Last: what cannot be linked is not kept.
        with compiler.FINISHING:
            code_cache.keep(wanted.file_name, compiler.fingerprint(), code)

    def _take(self, wanted: HandlerSet, code: bytes) -> None:
        loaded = _load(wanted, code)
        with self._changed:
            # A new table in place of the old one: other threads look handlers up meanwhile.
            self.handlers = {**self.handlers, **loaded.handlers}
            self.pairs = [*self.pairs, *loaded.pairs]
            self.ready = self.ready or wanted.name == "everyday"
            if wanted.name == "pairs":
                self.table = self._new_table()
                self.has_pairs = True
            self._asked.discard(wanted.name)
            self._changed.notify_all()


#: A single handler takes a tenth of a second; the guest that came to its instruction is slow until then.
_URGENCIES = {"everyday": Urgency.SOON, "pairs": Urgency.LATER}


@cache
def service() -> CompileService:
    """The process's one compile service."""
    return CompileService()


@cache
def _library(mode: Mode) -> HandlerLibrary:
    return HandlerLibrary(mode)


_making = threading.Lock()


def library(mode: Mode) -> HandlerLibrary:
    """The process's handlers for a machine mode."""
    with _making:
        return _library(mode)


def _load(wanted: HandlerSet, code: bytes) -> _Loaded:
    (table,) = runtime().load(wanted.file_name, code, HANDLERS, compiler.TABLE)
    keys, together = wanted.keys, wanted.pairs
    split = compiler.KEY_ENTRIES * len(keys)
    begin, *addresses, end = (ctypes.c_uint64 * (split + len(together) + 2)).from_address(table)
    # No address in the code depends on its place: it goes to the regions, into large pages.
    moved = code_space().put(ctypes.string_at(begin, end - begin)) - begin
    addresses = [at + moved if at else 0 for at in addresses]
    entries = (addresses[n : split : compiler.KEY_ENTRIES] for n in range(compiler.KEY_ENTRIES))
    handlers = {key: Handlers(*of) for key, *of in zip(keys, *entries, strict=True) if of[0]}
    return _Loaded(handlers, list(zip(together, addresses[split:], strict=True)))
