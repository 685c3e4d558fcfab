"""Where a process of the fuzzer is: in a file that outlives the process."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_PLACE = struct.Struct("=qq")


class Progress:
    """A seed and the number of the start of its world that is being run; -1: none."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_PLACE.pack(-1, -1))
        with path.open("r+b") as file:
            self._at = mmap.mmap(file.fileno(), _PLACE.size)

    def note(self, seed: int, start: int) -> None:
        """The run of this start begins."""
        _PLACE.pack_into(self._at, 0, seed, start)

    def read(self) -> tuple[int, int]:
        """The seed and the start that were being run last."""
        seed, start = _PLACE.unpack_from(self._at, 0)
        return seed, start
