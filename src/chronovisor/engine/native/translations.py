"""A thread's translations where native code finds them, and the concrete evaluator's beside them."""

from __future__ import annotations

import ctypes
import mmap

from chronovisor.engine.native.layout import CONTEXTS, ThreadContext, Tlb
from chronovisor.engine.native.state_layout import KEYS


class ThreadContexts:
    """The contexts of one thread, with a TLB for each value of AMR's key 0; all are stale at first.

    Their memory is taken from the machine as native code first touches it.
    """

    def __init__(self) -> None:
        self._contexts = (ThreadContext * CONTEXTS)()
        size = ctypes.sizeof(Tlb)
        self._tlbs = mmap.mmap(-1, CONTEXTS * KEYS * size)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._tlbs))
        for context in self._contexts:
            for key in range(KEYS):
                context.stale[key] = 1
                context.tlbs[key] = place
                place += size
        self.address = ctypes.addressof(self._contexts)
