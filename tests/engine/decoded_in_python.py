"""What a block of words is decoded to, computed in Python: the oracle of the native decoder."""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from chronovisor.engine.native.encoding import ADDRESS, Encoding, encoding
from chronovisor.engine.native.layout import PAGE_SHIFT, SMALL_COUNT, WIDE_COUNT
from chronovisor.engine.native.library import library, runtime
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pairs import Key, Pair, sources, target
from chronovisor.engine.python_source import compile_values
from chronovisor.isa.decode import decode
from chronovisor.isa.values import mask

OPERANDS = struct.Struct(f"<{WIDE_COUNT}Q{SMALL_COUNT}B")
NO_OPERANDS = (0,) * (WIDE_COUNT + SMALL_COUNT)
#: Two addresses that tell whether a jump goes as far wherever the instruction is.
ADDRESSES = (1 << 28, 3 << 28)


class Decoded(NamedTuple):
    """What a record holds, and what tells whether it and the next make a pair."""

    handler: int
    operands: tuple[int, ...]
    key: Key | None
    near: bool
    numbers: dict[str, int]


class Layout:
    """How an instruction's operands are computed."""

    def __init__(self, key: Key, layout: Encoding) -> None:
        targets = () if layout.target is None else (layout.target,)
        self.wide, self.small = len(layout.wide), len(layout.small)
        self.compute = compile_values((*layout.wide, *layout.small, *targets), (*key[0].operands, ADDRESS))
        self.jumps = layout.target is not None

    def at(self, numbers: tuple[int, ...], address: int) -> tuple[tuple[int, ...], int]:
        """A record's operands and the jump's target."""
        found = self.compute(*(number & mask(64) for number in numbers), address)
        wide, rest = found[: self.wide], found[self.wide :]
        small, targets = rest[: self.small], rest[self.small :]
        filled = (*wide, *[0] * (WIDE_COUNT - len(wide)), *small, *[0] * (SMALL_COUNT - len(small)))
        return filled, targets[0] if targets else 0

    def distance(self, numbers: tuple[int, ...]) -> int | None:
        """How far the instruction jumps, in bytes; None if it does not, or if that depends on its address."""
        one, other = (self.at(numbers, address)[1] - address for address in ADDRESSES)
        return one if self.jumps and one == other else None


@cache
def layout(key: Key, mode: Mode, near: bool) -> Layout:
    return Layout(key, encoding(key[0].program(key[1], *mode), near))


def one(word: int, offset: int, mode: Mode) -> Decoded:
    """What a word at an offset in its page is decoded to."""
    found = decode(word)
    key = None if found is None else (found, found.meaning_statics(word))
    known = None if key is None else library(mode).handlers.get(key)
    if found is None or key is None or known is None:
        return Decoded(runtime().slow.far, NO_OPERANDS, None, False, {})
    numbers = found.decode_operands(word)
    by_name = dict(zip(found.operands, numbers, strict=True))
    distance = layout(key, mode, False).distance(numbers)
    if distance is None or not 0 <= offset + distance < 1 << PAGE_SHIFT:
        return Decoded(known.far, layout(key, mode, False).at(numbers, ADDRESSES[0])[0], key, False, by_name)
    assert known.near is not None
    return Decoded(known.near, layout(key, mode, True).at(numbers, ADDRESSES[0])[0], key, True, by_name)


@cache
def by_keys(mode: Mode, count: int) -> dict[tuple[Key, Key], list[tuple[Pair, int]]]:
    found: dict[tuple[Key, Key], list[tuple[Pair, int]]] = {}
    for pair, handler in library(mode).pairs[:count]:
        found.setdefault((pair.first, pair.second), []).append((pair, handler))
    return found


def linked(pair: Pair, first: dict[str, int], second: dict[str, int]) -> bool:
    """Whether two instructions with these operands are linked as the pair says."""
    if pair.link is None:
        return True
    sets = target(pair.first[0].program(pair.first[1]))
    number = second[pair.link]
    or_zero = sources(pair.second[0].program(pair.second[1]))[pair.link]
    return sets is not None and first[sets] == number and not (or_zero and number == 0)


def together(first: Decoded, second: Decoded | None, mode: Mode) -> tuple[int, bool]:
    """The handler of an instruction that is followed by another, and whether it is that of both."""
    if first.key is not None and second is not None and second.key is not None:
        pairs = by_keys(mode, len(library(mode).pairs))
        for pair, handler in pairs.get((first.key, second.key), ()):
            jumps = layout(second.key, mode, False).jumps
            if second.near is jumps and linked(pair, first.numbers, second.numbers):
                return handler, True
    return first.handler, False


def block(words: list[int], offset: int, mode: Mode) -> tuple[list[tuple[int, bytes]], int]:
    """Each record's handler and operands, and how many begin pairs, of words that begin a block."""
    decoded = [one(word, offset + 4 * n, mode) for n, word in enumerate(words)]
    records, pairs = [], 0
    for first, second in pairwise((*decoded, None)):
        assert first is not None
        handler, paired = together(first, second, mode)
        pairs += paired
        records.append((handler, OPERANDS.pack(*first.operands)))
    return records, pairs
