"""A queue of words that hypercalls fill and a device empties.

Those who fill it do so without the interpreter's lock: they raise TAIL by one, in one step, and then store a
word that is not 0 into the place that became theirs. TAIL only grows, and is less than LIMIT while the queue
takes words. One thread at a time empties it: it takes the words in their order, up to the first place that is
0, and makes their places 0 again.
"""

from __future__ import annotations

from typing import Final

from chronovisor.memory.words import words

TAIL: Final = 0
"""The number of the word that says how many words were put into the queue, ever."""
LIMIT: Final = 1
"""The number of the word that says how many may be; 0 while the queue takes none."""
FIRST: Final = 2
"""The number of the first place."""
PLACES: Final = 512
"""A power of two."""
WORDS: Final = FIRST + PLACES
"""Words of the whole queue."""


class WordQueue:
    """The device's side of a queue in so many words, all 0 at first. It takes none until `open`."""

    def __init__(self, table: memoryview | None = None) -> None:
        self._words = words(WORDS) if table is None else table
        self._head = 0
        self._room = 0

    def open(self, room: int = PLACES) -> None:
        """Have room from now on for so many words that have not been taken."""
        self._room = room
        self._words[LIMIT] = self._head + room

    def close(self) -> None:
        """Take no more words. Who is just putting one in may still do so."""
        self._room = self._words[LIMIT] = 0

    def take(self) -> list[int]:
        """Return the words that are there. If the queue is open, it has room for as many again."""
        table, head, taken = self._words, self._head, list[int]()
        while word := table[place := FIRST + head % PLACES]:
            taken.append(word)
            table[place] = 0
            head += 1
        self._head = head
        if self._room:
            table[LIMIT] = head + self._room
        return taken
