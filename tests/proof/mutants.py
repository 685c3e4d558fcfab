"""The switch with one thing wrong: what is claimed of the switch has to be refuted of each of these.

And the switch written otherwise but right: the claims have to be proven of each of those.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from chronovisor.timebase.offset import Shift
from chronovisor.timebase.types import GRANULE, LOW_MASK, MASK64

AnyShift = Callable[[Any, Any], Shift[Any]]


class Variant(NamedTuple):
    """The parts of a shift, each of them the right one unless given."""

    sum: Callable[[Any, Any], Any] = lambda before, delta: (before + delta) & MASK64
    moved: Callable[[Any], Any] = lambda delta: delta != 0
    wrapped: Callable[[Any, Any, Any], Any] = lambda before, written, after: (
        (after & LOW_MASK) < (written & LOW_MASK)
    )
    again: Callable[[Any, Any, Any], Any] = lambda before, written, after: (written + GRANULE) & MASK64
    checks_before_it_writes: bool = False
    repeats_where_not_moved: bool = False

    def __call__(self, tb: Any, delta: Any) -> Shift[Any]:
        before = tb.read()
        written = self.sum(before, delta)
        moved = self.moved(delta)
        after = tb.read() if self.checks_before_it_writes else before
        tb.write_tbu40(written, when=moved)
        if not self.checks_before_it_writes:
            after = tb.read()
        wrapped = self.wrapped(before, written, after)
        if not self.repeats_where_not_moved:
            wrapped = moved & wrapped
        tb.write_tbu40(self.again(before, written, after), when=wrapped)
        return Shift(before, written, after, moved, wrapped)


def low(bits: int) -> Callable[[Any, Any, Any], Any]:
    """Compare so many low bits."""
    return lambda before, written, after: (after & ((1 << bits) - 1)) < (written & ((1 << bits) - 1))


def signed(value: Any, bits: int) -> Any:
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


WRONG: dict[str, AnyShift] = {
    "the wrap check taken out": Variant(wrapped=lambda before, written, after: False),
    "the check made before the write": Variant(checks_before_it_writes=True),
    "the second write without a carry": Variant(again=lambda before, written, after: written),
    "a carry of 2^23": Variant(again=lambda before, written, after: (written + GRANULE // 2) & MASK64),
    "a carry of 2^25": Variant(again=lambda before, written, after: (written + GRANULE * 2) & MASK64),
    "a carry taken off": Variant(again=lambda before, written, after: (written - GRANULE) & MASK64),
    "the carry added to the reading": Variant(
        again=lambda before, written, after: (before + GRANULE) & MASK64
    ),
    "the carry added behind the low bits": Variant(again=lambda before, written, after: written + 1),
    "the sum taken anew from the second reading": Variant(
        again=lambda before, written, after: (after + written - before) & MASK64
    ),
    "always carried": Variant(wrapped=lambda before, written, after: True),
    "carried where it did not wrap": Variant(
        wrapped=lambda before, written, after: (after & LOW_MASK) >= (written & LOW_MASK)
    ),
    "compared as less or equal": Variant(
        wrapped=lambda before, written, after: (after & LOW_MASK) <= (written & LOW_MASK)
    ),
    "compared the wrong way round": Variant(
        wrapped=lambda before, written, after: (after & LOW_MASK) > (written & LOW_MASK)
    ),
    "compared in 16 bits": Variant(wrapped=low(16)),
    "compared in 23 bits": Variant(wrapped=low(23)),
    "compared as signed 24-bit numbers": Variant(
        wrapped=lambda before, written, after: signed(after, 24) < signed(written, 24)
    ),
    "compared with the whole reading": Variant(
        wrapped=lambda before, written, after: (after & LOW_MASK) < before
    ),
    "the upper bits compared": Variant(wrapped=lambda before, written, after: after >> 24 != written >> 24),
    "the offset subtracted": Variant(sum=lambda before, delta: (before - delta) & MASK64),
    "the offset added twice": Variant(sum=lambda before, delta: (before + 2 * delta) & MASK64),
    "32 bits of the offset": Variant(sum=lambda before, delta: (before + (delta & 0xFFFF_FFFF)) & MASK64),
    "the offset shifted by 23": Variant(sum=lambda before, delta: (before + (delta >> 1)) & MASK64),
    "the sum in 56 bits": Variant(sum=lambda before, delta: (before + delta) & ((1 << 56) - 1)),
    "only offsets ahead": Variant(moved=lambda delta: (delta > 0) & (delta < (1 << 63))),
    "only offsets of 2^32 and more": Variant(moved=lambda delta: delta >= (1 << 32)),
    "the carry kept in 32 bits": Variant(
        again=lambda before, written, after: (
            (written & (MASK64 - 0xFFFF_FFFF)) + ((written + GRANULE) & 0xFFFF_FFFF)
        )
    ),
    "the carry in 56 bits": Variant(
        again=lambda before, written, after: (written + GRANULE) & ((1 << 56) - 1)
    ),
    "56 bits of the offset": Variant(sum=lambda before, delta: (before + (delta & ((1 << 56) - 1))) & MASK64),
    "a wrap seen only just at 0": Variant(wrapped=lambda before, written, after: (after & LOW_MASK) == 0),
    "low bits of the sum dropped": Variant(
        sum=lambda before, delta: ((before & (MASK64 - LOW_MASK)) + delta) & MASK64
    ),
    "low bits of the sum dropped and 2^24 added": Variant(
        sum=lambda before, delta: ((before | LOW_MASK) + 1 + delta) & MASK64
    ),
}

RIGHT: dict[str, AnyShift] = {
    "put together from its parts": Variant(),
    "compared with the first reading": Variant(
        wrapped=lambda before, written, after: (after & LOW_MASK) < (before & LOW_MASK)
    ),
    "compared in 32 bits": Variant(wrapped=low(32)),
    "compared in all 64 bits": Variant(wrapped=lambda before, written, after: after < written),
    "compared as signed 32-bit numbers": Variant(
        wrapped=lambda before, written, after: signed(after, 32) < signed(written, 32)
    ),
    "the carry added to the second reading's low bits": Variant(
        again=lambda before, written, after: ((written | LOW_MASK) + 1) & MASK64
    ),
}
