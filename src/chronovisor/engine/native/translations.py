"""A thread's translations where native code finds them."""

from __future__ import annotations

import ctypes
from typing import Final, Protocol

from chronovisor.engine.native.layout import KEYS, Tlb
from chronovisor.engine.translation import Context, Translations
from chronovisor.isa.bits import MSR

_MODE: Final = int(MSR.SF | MSR.LE | MSR.IR | MSR.DR)
_MOST: Final = 256
"""How many TLBs a thread keeps, each for one state of the registers that translation depends on."""
_KEY_SHIFT: Final = 62
"""Where AMR has the two bits of key 0."""

Key = tuple[tuple[int, ...], int]
"""The state of the registers that translation depends on: of all but AMR, and AMR's key 0."""


class NativeContext(Context, Protocol):
    """A thread whose native code uses a TLB."""

    tlb: int
    tlb_by_key: ctypes.Array[ctypes.c_uint64]


class NativeTranslations(Translations):
    """The concrete evaluator's translations and, beside them, TLBs that native code fills and uses.

    Linux changes AMR's key 0 around each access to user memory, so native code changes over to the TLB of
    another key by itself. The TLBs that it can reach that way are the live ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tlbs: dict[Key, Tlb] = {}
        #: Those that were not forgotten since they were last used.
        self._valid: set[Key] = set()
        self._live: list[Tlb] = []

    def adopt(self, thread: NativeContext) -> None:
        """Have the thread's native code use the TLB that holds with its registers as they are."""
        with self.lock:
            context = (thread.PATE1, thread.PIDR, thread.IAMR >> _KEY_SHIFT, thread.MSR & (_MODE | MSR.PR))
            now = thread.AMR >> _KEY_SHIFT
            self._use((context, now))
            self._live = []
            for key in range(KEYS):
                tlb = self._tlbs[context, key] if (context, key) in self._valid else None
                thread.tlb_by_key[key] = 0 if tlb is None else tlb.address
                self._live += [] if tlb is None else [tlb]
            thread.tlb = thread.tlb_by_key[now]

    def _use(self, key: Key) -> None:
        """Make the TLB of a state valid, if it is not."""
        if key in self._valid:
            return
        if key in self._tlbs:
            self._tlbs[key].invalidate()
        else:
            if len(self._tlbs) >= _MOST:
                self._tlbs.clear()
                self._valid.clear()
            self._tlbs[key] = Tlb()
        self._valid.add(key)

    def forget(self) -> None:
        """Look everything up anew."""
        with self.lock:
            super().forget()
            # Native code may be using a live one at this moment. Others are emptied when they are used again.
            for tlb in self._live:
                tlb.invalidate()
            self._valid = {key for key in self._valid if self._tlbs[key] in self._live}
