"""Decrementers: deadlines in ticks that a write to TBU40 does not move, and where their expiry is kept.

In a hardware thread a decrementer counts the ticks of the running clock, whatever the timebase shows.
Between exit and entry it is kept as its *expiry*, the value of DEC + T, in host time; the register
interface shows it in guest time.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import MASK64, HostTime, Offset, SourceTime, Ticks

DecWidth: TypeAlias = Literal[32, 56]
"""Bits of DEC: 32 where LPCR[LD] is 0, 56 (POWER9) where it is 1."""


class Decrementer:
    """The DEC register (SPR 22) of one hardware thread, held as the tick at which it goes from 0 to -1.

    Its exception is a level: it exists while the register's most significant bit is 1, and is gone when the
    guest writes a positive value, or when the register itself wraps to one. The latter is told from a stop
    by `latched`.
    """

    def __init__(self, clock: HostClock) -> None:
        self._clock = clock
        self._source = clock.source
        self.deadline = self._source.ticks()
        """The tick of the source at which DEC is 0; the exception exists one tick later."""
        self._seen = self.deadline
        self.latched = False
        """Whether the exception exists whatever the most significant bit is: it came while the thread did
        not run.
        """

    def write(self, value: int, width: DecWidth) -> None:
        """Set DEC to the low `width` bits of `value`, sign-extended: ticks until 0. Drops the latch."""
        now = self._source.ticks()
        self.deadline = SourceTime(now + _sign_extended(value, width))
        self._seen = now
        self.latched = False

    def write_deadline(self, deadline: SourceTime, now: SourceTime | None = None) -> None:
        """Set DEC to be 0 at tick `deadline` of the source: a write, at tick `now`, by code that reads the
        clock itself.
        """
        self.deadline = deadline
        self._seen = self._source.ticks() if now is None else now
        self.latched = False

    def read(self, width: DecWidth) -> int:
        """Return DEC as `mfspr` reads it, 64 bits: zero-extended where it is 32 bits wide, sign-extended
        where 56.
        """
        left = self.deadline - self._source.ticks()
        return left & 0xFFFF_FFFF if width == 32 else _sign_extended(left, width) & MASK64

    @property
    def expired(self) -> bool:
        """Whether the deadline is past (DEC was -1), however long ago."""
        return self.deadline < self._source.ticks()

    def asserted(self, width: DecWidth) -> bool:
        """Return whether the decrementer's exception exists: the level that MSR[EE] lets through.

        The thread asks while it runs. Where the register has passed through all of its negative values
        since it was last asked, the thread was stopped for that long (its machine was suspended, say), and
        what came then is latched.
        """
        return self._exists(self._source.ticks(), width)

    def expiry(self, timebase: HostTimebase, width: DecWidth, now: SourceTime | None = None) -> HostTime:
        """Return DEC + T at one instant: the expiry, to be kept while the thread is out of the guest.

        The sum is in the units of T, so `timebase` must be the host's again. DEC is the one of tick `now`,
        when the thread left, or else the present one. A register that has wrapped while its
        thread ran expires when it next goes to -1, one whose exception is latched keeps its true moment.
        """
        if now is None:
            now = self._source.ticks()
        left = self.deadline - now
        if left >> (width - 1) not in (0, -1):
            # More than the register holds.
            self._exists(now, width)
            if not self.latched:
                left = _sign_extended(left, width)
        return HostTime(now + left + self._clock.origin + timebase.adjust)

    def load(self, expiry: HostTime, now: SourceTime | None = None) -> None:
        """Set DEC from the `expiry` kept, on entry at tick `now`, or else at the present one; where that is
        past, latch the exception however long ago it was.
        """
        if now is None:
            now = self._source.ticks()
        self.deadline = self._clock.ticks_at(expiry, now)
        self._seen = now
        self.latched = self.deadline < now

    def _exists(self, now: SourceTime, width: DecWidth) -> bool:
        left = self.deadline - now
        if left < -(1 << (width - 1)) and self.deadline >= self._seen:
            self.latched = True
        self._seen = now
        return self.latched or _sign_extended(left, width) < 0


def rebased(expiry: HostTime, old: Offset, new: Offset) -> HostTime:
    """Return the host value of an expiry whose guest value is to stay while the offset changes from `old`
    to `new`.

    Where a vCPU's offset is set, each expiry that it keeps goes through here, and nowhere else.
    """
    return (expiry + old) - new


def remaining(expiry: HostTime, now: HostTime) -> Ticks:
    """Return the ticks until `expiry`, negative where it is past: the timer is pending. Sound within 2^63
    ticks (570 years).
    """
    return expiry - now


def _sign_extended(value: int, width: int) -> int:
    half = 1 << (width - 1)
    return ((value + half) & ((1 << width) - 1)) - half
