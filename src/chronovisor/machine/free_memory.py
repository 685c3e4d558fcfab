"""Places in a guest's memory that its image leaves free."""

from __future__ import annotations

from typing import Final

from chronovisor.machine.elf import Image
from chronovisor.machine.errors import MachineError
from chronovisor.memory import PAGE_SIZE

_LOWEST: Final = 0x4000
"""Guests write the interrupt vectors, which lie below."""
_HIGHEST: Final = 1 << 31
"""Guests that start in 32-bit code can still reach what lies below."""


class FreeMemory:
    """The memory of a guest of `size` bytes that its image does not use, taken from the top down."""

    def __init__(self, image: Image, size: int) -> None:
        self._name = image.name
        self._used = [(segment.addr, segment.end) for segment in image.segments]
        self._top = min(size, _HIGHEST)

    def take(self, size: int, what: str) -> int:
        """Return the real address of `size` free bytes that begin on a page, as high as possible.

        MachineError, which names `what` they are for, if there is no room.
        """
        above = self._top
        for start, end in (*sorted(self._used, reverse=True), (0, _LOWEST)):
            at = (above - size) // PAGE_SIZE * PAGE_SIZE
            if at >= end:
                self._used.append((at, at + size))
                return at
            above = min(above, start)
        raise MachineError(
            f"{self._name}: the image leaves no {size} bytes for {what}; give the guest more memory"
        )
