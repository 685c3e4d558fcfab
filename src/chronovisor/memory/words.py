"""Tables of words that a device shares with the hypervisor, such as the entries of its DMA window."""

from __future__ import annotations


def words(count: int) -> memoryview:
    """Return so many words of 64 bits, in this machine's byte order, all 0."""
    return memoryview(bytearray(8 * count)).cast("Q")
