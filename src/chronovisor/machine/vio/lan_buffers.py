"""The buffers that a guest has handed to its network card for frames that come."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

MOST_BUFFERS: Final = 4096


class Descriptor(NamedTuple):
    """A piece of memory, as the hypercalls name it in 64 bits."""

    valid: bool
    size: int
    address: int
    """An I/O address."""

    @classmethod
    def of(cls, word: int) -> Descriptor:
        """Unpack it."""
        return cls(bool(word >> 63), word >> 32 & 0xFF_FFFF, word & 0xFFFF_FFFF)


class Buffers:
    """A card's buffers. Each frame takes the smallest that it fits into, of these the oldest."""

    def __init__(self) -> None:
        self._by_size: dict[int, deque[int]] = {}
        """Descriptors, each of 64 bits."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, word: int) -> bool:
        """Have another one; False if there are too many."""
        if self._count >= MOST_BUFFERS:
            return False
        self._by_size.setdefault(Descriptor.of(word).size, deque()).append(word)
        self._count += 1
        return True

    def take(self, least: int, most: int | None = None) -> Descriptor | None:
        """Take the smallest of at least, and at most, so many bytes; None if there is none."""
        size = min((size for size in self._by_size if size >= least), default=None)
        if size is None or (most is not None and size > most):
            return None
        buffers = self._by_size[size]
        word = buffers.popleft()
        if not buffers:
            del self._by_size[size]
        self._count -= 1
        return Descriptor.of(word)

    def words(self) -> tuple[int, ...]:
        """Return the descriptors of all."""
        return tuple(word for buffers in self._by_size.values() for word in buffers)
