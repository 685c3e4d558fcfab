"""Mistakes on purpose, each of which the fuzzer must find: see `test_translated_programs`.

A mutant is a function that breaks the engine of this process before anything is compiled. What lies beside
the handlers is then compiled here and not kept on disk. The handlers themselves stay as they are.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, NoReturn

from llvmlite import ir

from chronovisor.engine import state
from chronovisor.engine.native import code_cache, compiler, contexts, engine, invalidation, walk
from chronovisor.engine.native.emitter import I64, POINTER, VOID, ThreadEmitter, word
from chronovisor.isa import radix
from chronovisor.isa.bits import MSR

_ROWS: dict[str, Any] = walk._ROWS


def _build_here() -> None:
    """Compile what lies beside the handlers with this process's mistakes, and keep it nowhere."""
    code_cache.fetch = lambda name, fingerprint, make: make()


def tlbie_of_a_page_forgets_nothing() -> None:
    def define(module: ir.Module, ask_flush: ir.Function) -> ir.Function:
        kind = ir.FunctionType(VOID, [POINTER, I64, I64, I64])
        e = ThreadEmitter(module, kind, "chronovisor_forget_pages")
        e.b.ret_void()
        return e.function

    compiler.define_forget_pages = define
    _build_here()


def tlbie_of_a_process_forgets_nothing() -> None:
    invalidation._forget_process = lambda e, process: None
    _build_here()


def fetches_stay_in_the_tlb() -> None:
    """An invalidation of a page leaves its fetches alone."""
    ours = ThreadEmitter.tlb_entry

    def entry(self: Any, tlb: ir.Value, kind: str, page: ir.Value, way: int = 0) -> tuple[ir.Value, ir.Value]:
        return ours(self, tlb, "load" if kind == "fetch" else kind, page, way)

    contexts.ContextEmitter.tlb_entry = entry  # type: ignore[method-assign]
    _build_here()


def stale_tlbs_are_not_emptied() -> None:
    contexts.ContextEmitter.empty = lambda self, tlb: None  # type: ignore[method-assign]
    _build_here()


def _without(bits: int) -> None:
    ours = contexts._context_key
    contexts._context_key = lambda e: e.b.and_(ours(e), word(~bits & ((1 << 64) - 1)))
    _build_here()


def processes_share_a_context() -> None:
    _without(0xFFFF_FFFF << 32)


def problem_state_shares_a_context() -> None:
    _without(int(MSR.PR))


def fetch_keys_share_a_context() -> None:
    _without(3 << 16)


def native_walks_record_nothing() -> None:
    """R and C stay as they are."""
    _ROWS["update_real"] = lambda *of: None
    _build_here()


def native_walks_know_no_keys() -> None:
    ours = _ROWS["get"]
    _ROWS["get"] = lambda made, v: word(0) if v.detail == "AMR" else ours(made, v)
    _build_here()


def native_faults_set_nothing() -> None:
    """DAR and DSISR stay as they are."""
    _ROWS["set"] = lambda made, v, a: None
    _build_here()


def walks_record_no_change() -> None:
    """In the meaning: a store sets R but not C."""
    radix.CHANGED = 0  # type: ignore[misc]
    _build_here()


def keys_are_inverted() -> None:
    """In the meaning: the key's bit for loads forbids stores, and the other way round."""
    radix._AMR_NO_LOAD, radix._AMR_NO_STORE = radix._AMR_NO_STORE, radix._AMR_NO_LOAD  # type: ignore[misc]
    _build_here()


def the_process_table_has_no_end() -> None:
    radix.TABLE_SIZE = 0x1F | 0x20  # type: ignore[misc]
    _build_here()


def privileged_pages_are_open() -> None:
    radix.PRIVILEGED = 0  # type: ignore[misc]
    _build_here()


def concrete_walks_record_nothing() -> None:
    state.Thread.update_real = lambda self, address, old, new: None  # type: ignore[method-assign]


def icbi_forgets_nothing_natively() -> None:
    engine.NativeEngine.forget = lambda self, address: None  # type: ignore[method-assign]


def crash() -> None:
    """Native code dies at once: to show that the fuzzer outlives it."""
    # A read at address 8 never returns, so what it would return does not matter.
    engine.NativeEngine.run = lambda *run: ctypes.string_at(8)[0]  # type: ignore[method-assign,assignment,return-value]


def hang() -> None:
    """Native code never returns."""

    def run(self: engine.NativeEngine, thread: object, budget: int) -> NoReturn:
        while True:
            time.sleep(1)

    engine.NativeEngine.run = run  # type: ignore[method-assign,assignment]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        tlbie_of_a_page_forgets_nothing,
        tlbie_of_a_process_forgets_nothing,
        fetches_stay_in_the_tlb,
        stale_tlbs_are_not_emptied,
        processes_share_a_context,
        problem_state_shares_a_context,
        fetch_keys_share_a_context,
        native_walks_record_nothing,
        native_walks_know_no_keys,
        native_faults_set_nothing,
        walks_record_no_change,
        keys_are_inverted,
        the_process_table_has_no_end,
        privileged_pages_are_open,
        concrete_walks_record_nothing,
        icbi_forgets_nothing_natively,
        crash,
        hang,
    )
}
