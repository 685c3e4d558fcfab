"""What `tlbie` and `tlbiel` must invalidate, from the instruction's word (Power ISA 3.0B Book III 5.9.3.3).

Written without the meaning under test. Where the book gives an implementation a choice, nothing must be
invalidated: whoever uses a translation whose tables have changed then gets the old or the new one.
"""

from __future__ import annotations

from dataclasses import dataclass

_SIZES = {0: 12, 5: 16, 1: 21, 2: 30}
_KERNEL = 3


@dataclass(frozen=True)
class Invalidation:
    """The translations of a process (None: of all) at some effective addresses (None: at all)."""

    process: int | None
    addresses: range | None

    def names(self, pid: int, page: int) -> bool:
        """Whether it invalidates the page of 4 KiB with this number, used while PIDR was `pid`."""
        process = 0 if page >> 50 == _KERNEL else pid
        if self.process is not None and process != self.process:
            return False
        return self.addresses is None or page << 12 in self.addresses


def named(word: int, rb: int, rs: int) -> Invalidation | None:
    """The invalidation that a word asks for, RB's and RS's values given; None if nothing has to go."""
    ric, is_process_scoped, is_radix = (word >> 18) & 3, (word >> 17) & 1, (word >> 16) & 1
    if not is_radix or not is_process_scoped or ric not in (0, 2):
        return None
    selector = (rb >> 10) & 3
    process = rs >> 32
    if selector == 0:
        size = _SIZES.get((rb >> 5) & 7)
        if ric or size is None:
            return None
        first = rb >> size << size
        return Invalidation(process, range(first, first + (1 << size)))
    return Invalidation(process if selector == 1 else None, None)
