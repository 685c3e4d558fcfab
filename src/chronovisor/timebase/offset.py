"""The timebase offset and its switch: from the host's time to a guest's on entry, and back on exit.

`shift` is the switch. It is written once, over the small interface `TimebaseRegister` and without a branch,
so that the function that runs on ints is also proven on bit-vectors and traced into native code. `Switch` is
the switch of a core: it also detects and repairs a switch that took too long, and tells an observer what
happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NewType, Protocol, TypeAlias, TypeVar

from chronovisor.timebase.tbu40 import CoreTimebase, HostTimebase, NoTbu40Error, TimebaseRegister
from chronovisor.timebase.trace import (
    Event,
    HostTimeRestored,
    Observer,
    OffsetApplied,
    SwitchBreached,
    Tbu40Written,
    TimebaseRead,
    Wrapped,
)
from chronovisor.timebase.types import GRANULE, LOW_MASK, MASK64, GuestTime, HostTime, Offset, Ticks


class Word(Protocol):
    """A 64-bit word: an int, or a value with an int's operators. Sums may be longer; they are masked."""

    def __add__(self, other: Any, /) -> Any: ...
    def __and__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __ne__(self, other: Any, /) -> Any: ...


V = TypeVar("V", bound=Word)


@dataclass(frozen=True, slots=True)
class Shift(Generic[V]):
    """What a switch did, as 64-bit words: the reading `before`, the value `written`, the reading `after`.

    `moved` tells whether anything was written, `wrapped` whether it was written again with 2^24 more. The
    readings are in the past: code that needs the time reads the timebase afresh.
    """

    before: V
    written: V
    after: V
    moved: Any
    wrapped: Any


def shift(tb: TimebaseRegister[V], delta: Any) -> Shift[V]:
    """Move the timebase `tb` by `delta` (64-bit, a multiple of 2^24 ticks, modulo 2^64); write nothing if it
    is 0.

    The written value was right when the timebase was read. If the low 24 bits have wrapped since, the write
    may have lost a carry into the upper 40 bits, so these are written once more with the carry. If the carry
    came after the write, the second write changes nothing.

    Precondition: fewer than 2^24 ticks (32.768 ms) pass between the first reading and the last access. In a
    longer time the low bits can wrap without looking smaller, or wrap twice. This function assumes the
    precondition; `Switch` detects its breach.
    """
    before = tb.read()
    written = (before + delta) & MASK64
    moved = delta != 0
    tb.write_tbu40(written, when=moved)
    after = tb.read()
    # Both sides are below 2^24, so a signed comparison (a prover's `<`) is an unsigned one too.
    wrapped = moved & ((after & LOW_MASK) < (written & LOW_MASK))
    tb.write_tbu40((written + GRANULE) & MASK64, when=wrapped)
    return Shift(before, written, after, moved, wrapped)


Shifter: TypeAlias = Callable[[TimebaseRegister[int], int], Shift[int]]
"""A switch over ints: `shift`, or another one to compare with it."""


Applied = NewType("Applied", Offset)
"""The offset that an entry added to a core's timebase and that its exit will take away."""


class SwitchBreachError(Exception):
    """Every attempt at a switch took 2^24 ticks (32.768 ms) or more; the core's timebase was left at host
    time.
    """

    def __init__(self, core: int, attempts: int) -> None:
        super().__init__(
            f"core {core}: each of {attempts} attempts to switch its timebase took 32.768 ms or longer, "
            "too long to be sound; the guest was not entered (is the machine overloaded?)"
        )


def require_tbu40(offset: Offset, has_tbu40: bool) -> None:
    """Raise `NoTbu40Error` for an `offset` other than 0 if the host has no TBU40."""
    if offset and not has_tbu40:
        raise NoTbu40Error(f"the timebase offset {offset.value:#x}")


class Switch:
    """The switch of a core; another `shifter` gives another switch to compare with.

    One switch may serve many cores: it keeps no state of them.
    """

    ATTEMPTS = 5
    """How often an entry is tried before it fails. A try fails only if it takes 2^24 ticks."""

    timebase: type[CoreTimebase] = CoreTimebase
    """The kind of timebase register that this switch handles best."""

    def __init__(self, shifter: Shifter = shift) -> None:
        self._shift = shifter

    def enter(self, tb: CoreTimebase, offset: Offset, observer: Observer | None = None) -> Applied:
        """Give the core the guest's time, T = H + `offset`, and return what the exit has to take away.

        To be called by the core's primary thread with T = H, before any of its threads may run guest code.
        Raises `NoTbu40Error` for an offset other than 0 on a core without TBU40, and `SwitchBreachError` if
        every attempt took too long; both leave T = H.
        """
        require_tbu40(offset, tb.has_tbu40)
        if observer is None:
            self._add(tb, offset, None)
            return Applied(offset)
        seen: list[Event] = []
        try:
            self._add(tb, offset, seen)
            seen.append(OffsetApplied(tb.core, offset))
        finally:
            _tell(observer, seen)
        return Applied(offset)

    def leave(self, tb: CoreTimebase, applied: Applied, observer: Observer | None = None) -> HostTimebase:
        """Give the core back the host's time, T = H, taking away what `enter` added; return the witness.

        To be called when all threads of the core have left the guest.
        """
        seen: list[Event] | None = None if observer is None else []
        if applied and self._breach(tb, -applied.value & MASK64, seen):
            tb.load_from_tod()
        if observer is not None and seen is not None:
            # Read afresh: the switch's own readings are in the past.
            seen.append(HostTimeRestored(tb.core, HostTime(tb.read()), applied))
            _tell(observer, seen)
        return HostTimebase(tb)

    def _add(self, tb: CoreTimebase, offset: Offset, seen: list[Event] | None) -> None:
        if not offset:
            return
        for _ in range(self.ATTEMPTS):
            if not self._breach(tb, offset.value, seen):
                return
            tb.load_from_tod()
        raise SwitchBreachError(tb.core, self.ATTEMPTS)

    def _breach(self, tb: CoreTimebase, delta: int, seen: list[Event] | None) -> bool:
        """Shift by `delta` (64-bit) and add each step to `seen`; return whether that took 2^24 ticks or more
        by the host's clock, so that T cannot be trusted.
        """
        begun = tb.tod()
        self._shift(tb if seen is None else _Recorded(tb, seen), delta)
        took = tb.tod() - begun
        if took < Ticks(GRANULE):
            return False
        if seen is not None:
            seen.append(SwitchBreached(tb.core, took))
        return True


def guest_time(tb: CoreTimebase, applied: Applied) -> GuestTime:
    """Return the guest's time on a core that is in the guest: T itself. `applied` is the witness."""
    return GuestTime(tb.read())


class _Recorded:
    """A core's timebase that records its accesses."""

    def __init__(self, tb: CoreTimebase, seen: list[Event]) -> None:
        self._tb = tb
        self._seen = seen
        self._written = False

    def read(self) -> int:
        value = self._tb.read()
        self._seen.append(TimebaseRead(self._tb.core, value))
        return value

    def write_tbu40(self, value: int, when: bool = True) -> None:
        if not when:
            return
        self._tb.write_tbu40(value)
        if self._written:
            self._seen.append(Wrapped(self._tb.core))
        self._seen.append(Tbu40Written(self._tb.core, value, after_wrap=self._written))
        self._written = True


def _tell(observer: Observer | None, seen: list[Event]) -> None:
    if observer is not None:
        for event in seen:
            observer(event)
