"""Mistakes on purpose, each of which the fuzzer must find: see `test_translated_programs`.

A mutant is a function that breaks the engine of this process. Native code itself is made by another process
and kept on disk: what is broken here is what Python decides, and the concrete evaluator.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from chronovisor.engine.native import engine, layout, state, translations
from chronovisor.engine.translation import Translations
from chronovisor.isa.radix import Access


def tlbie_forgets_nothing_natively() -> None:
    """The TLB stays as it is; the concrete evaluator's translations are forgotten."""
    translations.NativeTranslations.forget = Translations.forget  # type: ignore[method-assign]


def tlbiel_forgets_nothing() -> None:
    def forget(self: state.NativeThread, whose: str) -> None:
        if whose == "all":
            self.code.forget_translations()

    state.NativeThread.forget_translations = forget  # type: ignore[method-assign]


def fetches_stay_in_the_tlb() -> None:
    """An invalidation leaves the tags of fetches alone."""

    def invalidate(self: layout.Tlb) -> None:
        ctypes.memset(self.address + layout.Tlb.load_tags.offset, 0xFF, 2 * 8 * layout.TLB_ENTRIES)

    layout.Tlb._invalidate = invalidate  # type: ignore[method-assign]
    ours = layout.Tlb.__init__

    def begin(self: layout.Tlb) -> None:
        ours(self)
        ctypes.memset(self.address + layout.Tlb.load_tags.offset, 0xFF, 3 * 8 * layout.TLB_ENTRIES)

    layout.Tlb.__init__ = begin  # type: ignore[method-assign]


def processes_share_a_tlb() -> None:
    """A TLB is chosen without a look at PIDR."""
    ours = translations.NativeTranslations.adopt

    class Thread:
        PIDR = 5

        def __init__(self, thread: Any) -> None:
            object.__setattr__(self, "_thread", thread)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._thread, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self._thread, name, value)

    translations.NativeTranslations.adopt = (  # type: ignore[method-assign]
        lambda self, thread: ours(self, Thread(thread))  # type: ignore[arg-type]
    )


def problem_state_shares_a_tlb() -> None:
    """A TLB is chosen without a look at MSR[PR]."""
    translations.MSR = _Without(translations.MSR, "PR")  # type: ignore[misc,assignment]


class _Without:
    """An enumeration one of whose members is 0."""

    def __init__(self, enumeration: Any, name: str) -> None:
        self._enumeration = enumeration
        setattr(self, name, 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._enumeration, name)


def keys_are_not_looked_at_concretely() -> None:
    """The concrete evaluator uses what was translated with another key."""

    def choose(self: Translations, thread: Any) -> None:
        self.key = (thread.PATE1, thread.PIDR, thread.MSR & (1 << 14), 0, 0)
        self.pages = self._contexts.setdefault(self.key, {access: {} for access in Access})

    Translations.choose = choose  # type: ignore[method-assign]


def icbi_forgets_nothing_natively() -> None:
    engine.NativeEngine.forget = lambda self, address: None  # type: ignore[method-assign]


def crash() -> None:
    """Native code dies at the first access that it leaves: to show that the fuzzer outlives it."""
    engine.NativeEngine._run_native = lambda self, thread: ctypes.string_at(8)[0]  # type: ignore[method-assign]


def hang() -> None:
    """Native code never returns."""

    def run(self: engine.NativeEngine, thread: state.NativeThread) -> int:
        while True:
            time.sleep(1)

    engine.NativeEngine._run_native = run  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        tlbie_forgets_nothing_natively,
        tlbiel_forgets_nothing,
        fetches_stay_in_the_tlb,
        processes_share_a_tlb,
        problem_state_shares_a_tlb,
        keys_are_not_looked_at_concretely,
        icbi_forgets_nothing_natively,
        crash,
        hang,
    )
}
