"""A thread's translations over ints: the walk of the tables, and what was found, until it is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

from chronovisor.engine.endings import GuestInterrupt, TableChanged
from chronovisor.engine.python_source import compile_program
from chronovisor.isa.bits import MSR
from chronovisor.isa.radix import KEY_SHIFT, Access, translation

PAGE_SHIFT: Final = 12
"""The smallest page is 4 KiB; larger pages are kept as as many small ones as are used."""
PAGE_MASK: Final = (1 << PAGE_SHIFT) - 1

Pages = dict[int, int]
"""Effective page number to the difference between real and effective address."""


class Context(Protocol):
    """The registers that translation depends on."""

    PATE1: int
    PIDR: int
    MSR: int
    AMR: int
    IAMR: int


class _Onlooker:
    """Walks a thread's tables as its most privileged code could, and changes neither tables nor registers."""

    def __init__(self, context: Context, load_real: Callable[[int], int]) -> None:
        self.PATE1, self.PIDR, self.MSR = context.PATE1, context.PIDR, context.MSR & ~int(MSR.PR)
        self.AMR = self.IAMR = self.DAR = self.DSISR = 0
        self.load_real = load_real

    def update_real(self, address: int, old: int, new: int) -> None:
        """Leave a page's reference bit as it is."""


def looked_up(thread: Context, load_real: Callable[[int], int], ea: int) -> int | None:
    """Return the real address to which a thread's tables lead, whatever they permit; None if to none.

    Nothing that the guest can see changes.
    """
    onlooker = _Onlooker(thread, load_real)
    for access in (Access.LOAD, Access.FETCH):
        try:
            return int(_walk(access)(onlooker, ea)[0])
        except GuestInterrupt:
            # A page may be for fetches alone.
            continue
    return None


@cache
def _walk(access: Access) -> Callable[..., Any]:
    return compile_program(translation(access), False)


class Translations:
    """What a thread has translated, for each state of the registers that translation depends on.

    `pages` has the current state's pages, by kind of access.
    """

    def __init__(self) -> None:
        self._contexts: dict[tuple[int, ...], dict[Access, Pages]] = {}
        self.pages: dict[Access, Pages] = {access: {} for access in Access}
        self._generation = 0
        self.lock = threading.RLock()
        self.key: tuple[int, ...] = ()
        """The registers with which `pages` hold."""

    def choose(self, thread: Context) -> None:
        """Use the pages that hold with the thread's registers as they are."""
        with self.lock:
            problem = thread.MSR & MSR.PR
            keys = thread.AMR >> KEY_SHIFT, thread.IAMR >> KEY_SHIFT
            self.key = (thread.PATE1, thread.PIDR, problem, *keys)
            pages = self._contexts.get(self.key)
            if pages is None:
                # Not made if it is there: this happens each time that the concrete evaluator comes in.
                pages = self._contexts[self.key] = {access: {} for access in Access}
            self.pages = pages

    def forget(self) -> None:
        """Look everything up anew."""
        with self.lock:
            self._generation += 1
            for pages in self.pages.values():
                pages.clear()
            self._contexts = {self.key: self.pages}

    def walk(self, thread: Context, ea: int, access: Access) -> int:
        """Translate an effective address by the tables; keep its page. Raises GuestInterrupt."""
        while True:
            generation = self._generation
            try:
                real: int
                real, _ = _walk(access)(thread, ea)
                break
            except TableChanged:
                continue
        if generation == self._generation:
            # Otherwise another thread invalidated the entry that the walk has used.
            self.pages[access][ea >> PAGE_SHIFT] = (real & ~PAGE_MASK) - (ea & ~PAGE_MASK)
        return real
