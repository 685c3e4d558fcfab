"""The buffers that a guest has handed to its network card for frames that come."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

MOST_BUFFERS: Final = 4096
_FEW_SIZES: Final = 4
_SIZE: Final = 0xFF_FFFF
_ADDRESS: Final = 0xFFFF_FFFF
"""Parts of a descriptor."""


class Descriptor(NamedTuple):
    """A piece of memory, as the hypercalls name it in 64 bits."""

    valid: bool
    size: int
    address: int
    """An I/O address."""

    @classmethod
    def of(cls, word: int) -> Descriptor:
        """Unpack it."""
        return cls(bool(word >> 63), word >> 32 & _SIZE, word & _ADDRESS)


class Buffers:
    """A card's buffers. Each frame takes the smallest that it fits into, of these the oldest."""

    def __init__(self) -> None:
        self._by_size: dict[int, deque[int]] = {}
        """Descriptors, each of 64 bits."""
        self._sizes: list[int] = []
        """Of which there are buffers, in rising order."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def largest(self) -> list[int]:
        """A few of the sizes of which there are buffers, the largest, in rising order."""
        return self._sizes[-_FEW_SIZES:]

    def add(self, word: int) -> bool:
        """Have another one; False if there are too many."""
        if self._count >= MOST_BUFFERS:
            return False
        self._of_size(word).append(word)
        self._count += 1
        return True

    def take(self, least: int, most: int = _SIZE) -> int | None:
        """Take the smallest of at least, and at most, so many bytes, and return its I/O address.

        None if there is none.
        """
        for size in self._sizes:
            if size >= least:
                break
        else:
            return None
        if size > most:
            return None
        return self._take(size, 1)[0] & _ADDRESS

    def lend(self, most: int) -> list[int]:
        """Take up to so many of the smallest size, and return their descriptors."""
        return self._take(self._sizes[0], most) if self._sizes else []

    def put_back(self, words: Sequence[int]) -> None:
        """Have those again that were lent last and not used."""
        if words:
            self._of_size(words[0]).extendleft(reversed(words))
            self._count += len(words)

    def _of_size(self, word: int) -> deque[int]:
        size = word >> 32 & _SIZE
        buffers = self._by_size.get(size)
        if buffers is None:
            buffers = self._by_size[size] = deque()
            insort(self._sizes, size)
        return buffers

    def _take(self, size: int, most: int) -> list[int]:
        buffers = self._by_size[size]
        words = [buffers.popleft() for _ in range(min(most, len(buffers)))]
        if not buffers:
            del self._by_size[size]
            self._sizes.remove(size)
        self._count -= len(words)
        return words

    def words(self) -> tuple[int, ...]:
        """Return the descriptors of all."""
        return tuple(word for buffers in self._by_size.values() for word in buffers)
