"""Memory that keeps its contents while the machine is off, which RTAS reads and writes (LoPAR, "NVRAM").

It is divided into partitions, each behind a header of 16 bytes: a signature, a checksum, the length in units
of 16 bytes, and a name of 12 bytes. A new one is free as a whole.
"""

from __future__ import annotations

import struct
from typing import Final

SIZE: Final = 1 << 14
"""In bytes. Linux keeps its last error logs and its last messages before a crash there, 8 KiB in all."""
_HEADER: Final = struct.Struct(">BBH12s")
_FREE: Final = 0x7F
_FREE_NAME: Final = b"\x77" * 12
_UNIT: Final = 16


class Nvram:
    """One guest's. It outlives reboots; moves and snapshots carry it."""

    def __init__(self) -> None:
        self._data = bytearray(SIZE)
        self._data[: _HEADER.size] = partition_header(_FREE, SIZE, _FREE_NAME)

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from `offset`, fewer at the end."""
        return bytes(self._data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> int:
        """Write what fits from `offset`; return how many bytes that was."""
        fits = data[: max(0, SIZE - offset)]
        self._data[offset : offset + len(fits)] = fits
        return len(fits)

    @property
    def contents(self) -> bytes:
        """All of it."""
        return bytes(self._data)

    @contents.setter
    def contents(self, data: bytes) -> None:
        self._data[:] = data.ljust(SIZE, b"\0")[:SIZE]


def partition_header(signature: int, size: int, name: bytes) -> bytes:
    """Return the header of a partition of `size` bytes.

    The checksum is the sum of the other bytes, whose carries are added at the low end.
    """
    blank = _HEADER.pack(signature, 0, size // _UNIT, name)
    total = sum(blank)
    while total > 0xFF:
        total = (total & 0xFF) + (total >> 8)
    return _HEADER.pack(signature, total, size // _UNIT, name)
