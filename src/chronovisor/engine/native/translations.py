"""A thread's translations where native code finds them."""

from __future__ import annotations

from typing import Final

from chronovisor.engine.native.layout import Tlb
from chronovisor.engine.translation import Context, Translations
from chronovisor.isa.bits import MSR

_MODE: Final = int(MSR.SF | MSR.LE | MSR.IR | MSR.DR)
_MOST: Final = 64
"""How many TLBs a thread keeps, each for one state of the registers that translation depends on."""


class NativeTranslations(Translations):
    """The concrete evaluator's translations and, beside them, a TLB that native code fills and uses."""

    def __init__(self) -> None:
        super().__init__()
        self.address = 0
        """Of the TLB that holds with the thread's registers as they are."""
        self._tlbs: dict[tuple[int, ...], Tlb] = {}
        self._tlb = Tlb()

    def choose(self, thread: Context) -> None:
        """Use the translations that hold with the thread's registers as they are."""
        with self.lock:
            super().choose(thread)
            key = (*self.key, thread.MSR & _MODE)
            found = self._tlbs.get(key)
            if found is None:
                if len(self._tlbs) >= _MOST:
                    self._tlbs.clear()
                found = self._tlbs[key] = Tlb()
            self._tlb = found
            self.address = found.address

    def forget(self) -> None:
        """Look everything up anew."""
        with self.lock:
            super().forget()
            self._tlb.invalidate()
            self._tlbs.clear()
