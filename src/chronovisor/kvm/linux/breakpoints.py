"""Breakpoints on the kernel's KVM: an instruction in guest memory, there only while a vCPU runs.

While all vCPUs are out of KVM_RUN memory is the guest's own: a debugger, a move and a snapshot see no
breakpoint. Live moves read memory while the guest runs, and get such a page once more in the last round,
because taking a breakpoint out writes to it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

DEBUG_INSTRUCTION: Final = 0x00DD_DD00
"""The illegal instruction at which KVM_RUN ends (KVM_REG_PPC_DEBUG_INST). Its bytes are the same in either
byte order.
"""
_WORD: Final = DEBUG_INSTRUCTION.to_bytes(4, "big")


class Code(Protocol):
    """Guest memory, by guest real addresses."""

    def read(self, address: int, size: int) -> bytes | None:
        """The bytes at an address; None if any of them is not there."""

    def write_code(self, address: int, data: bytes) -> None:
        """Write instructions, and have the processor fetch them anew."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a running vCPU needs: addresses with breakpoints besides the debugger's, and addresses without."""

    more: frozenset[int]
    without: frozenset[int]


class Breakpoints:
    """The breakpoints of one machine, by guest real addresses."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._changing = threading.Lock()
        self._running: list[_Wish] = []
        self._replaced: dict[int, bytes] = {}
        """What is in memory now, and the instructions whose places it has."""
        self.chosen: frozenset[int] = frozenset()
        """Those of the debugger. Changed while no vCPU runs."""

    def choose(self, addresses: Collection[int]) -> None:
        """Have these breakpoints and no others. No vCPU may be in KVM_RUN."""
        self.chosen = frozenset(addresses)

    @contextlib.contextmanager
    def inserted(self, more: Collection[int] = (), without: Collection[int] = ()) -> Iterator[None]:
        """Have the breakpoints in memory inside the context, for a vCPU that runs there.

        It has `more` of its own, and cannot have any at `without`; the others that run see this, too.
        """
        wish = _Wish(frozenset(more), frozenset(without))
        with self._changing:
            self._running.append(wish)
            self._put_right()
        try:
            yield
        finally:
            with self._changing:
                self._running.remove(wish)
                self._put_right()

    def _put_right(self) -> None:
        wanted: frozenset[int] = frozenset()
        if self._running:
            wanted = self.chosen.union(*(wish.more for wish in self._running))
            wanted = wanted.difference(*(wish.without for wish in self._running))
        for address in self._replaced.keys() - wanted:
            before = self._replaced.pop(address)
            # The guest may have written another instruction there.
            if self._code.read(address, len(_WORD)) == _WORD:
                self._code.write_code(address, before)
        for address in wanted - self._replaced.keys():
            own = self._code.read(address, len(_WORD))
            if own is not None:
                self._replaced[address] = own
                self._code.write_code(address, _WORD)
