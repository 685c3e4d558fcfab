"""Decrementers: deadlines in ticks that a write to TBU40 does not move, and where their expiry is kept.

In a hardware thread a decrementer counts the ticks of the running clock, whatever the timebase shows.
Between exit and entry it is kept as its *expiry*, the value of DEC + T, in host time. The register interface
shows the expiry in guest time.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import MASK64, HostTime, Offset, SourceTime, Ticks

DecWidth: TypeAlias = Literal[32, 56]
"""Bits of DEC: 32 if LPCR[LD] is 0, 56 (on POWER9) if it is 1."""

_VALUES: Final = {width: (-(1 << width - 1), 1 << width - 1) for width in get_args(DecWidth)}
"""The least value of a DEC that is so wide, and the one behind its greatest."""


class Decrementer:
    """The DEC register (SPR 22) of one hardware thread, held as the tick at which it goes from 0 to -1.

    Its exception is a level: it exists while the register's most significant bit is 1. It ends when the guest
    writes a positive value, or when the register itself wraps to one. `latched` tells such a wrap from a
    stop of the thread.
    """

    def __init__(self, clock: HostClock) -> None:
        self._clock = clock
        self._source = clock.source
        self.deadline = self._source.ticks()
        """The tick of the source at which DEC is 0; the exception exists one tick later."""
        # One moment, as a tick of the source and in host time: the expiry that was loaded or kept last. While
        # nobody writes DEC these stay the same objects, and none is made from the other again.
        self._expires_at, self._expiry = self.deadline, clock.at(self.deadline)
        self._seen = self.deadline
        self.latched = False
        """Whether the exception exists whatever the most significant bit is, because it came while the thread
        did not run.
        """

    def write(self, value: int, width: DecWidth) -> None:
        """Set DEC to the low `width` bits of `value`, sign-extended: ticks until 0. Clears the latch."""
        now = self._source.ticks()
        self.deadline = SourceTime(now + _sign_extended(value, width))
        self._seen = now
        self.latched = False

    def write_deadline(self, deadline: SourceTime, written: SourceTime, width: DecWidth) -> None:
        """Set DEC as a write at tick `written` of the source did: so that it is 0 at tick `deadline`.

        If DEC has passed through all of its negative values since, the thread was stopped, and the exception
        that came meanwhile is latched. A write of a negative value is no reason for that: see `asserted`.
        """
        self.deadline = deadline
        self._seen = written
        self.latched = False
        self._exists(self._source.ticks(), width)

    def read(self, width: DecWidth) -> int:
        """Return DEC as `mfspr` reads it, 64 bits: 32 bits are zero-extended, 56 bits sign-extended."""
        left = self.deadline - self._source.ticks()
        return left & 0xFFFF_FFFF if width == 32 else _sign_extended(left, width) & MASK64

    @property
    def expired(self) -> bool:
        """Whether the deadline is past (DEC was -1), however long ago."""
        return self.deadline < self._source.ticks()

    def asserted(self, width: DecWidth) -> bool:
        """Return whether the decrementer's exception exists: the level that MSR[EE] lets through.

        The thread asks while it runs. If the register has passed through all of its negative values since the
        last call, the thread was stopped for that long (its machine was suspended, for example), and the
        exception that came meanwhile is latched. In virtual time no thread is stopped, however seldom it
        asks.
        """
        return self._exists(self._source.ticks(), width)

    def expiry(self, timebase: HostTimebase, width: DecWidth, now: SourceTime | None = None) -> HostTime:
        """Return DEC + T at one instant: the expiry, to be kept while the thread is out of the guest.

        The sum is in the units of T, so `timebase` must be the host's again. DEC is read at tick `now`, when
        the thread left, or at the present one. A register that wrapped while its thread ran expires when it
        next goes to -1. A register whose exception is latched keeps its true expiry.
        """
        if now is None:
            now = self._source.ticks()
        deadline = self.deadline
        least, behind = _VALUES[width]
        if not least <= deadline - now < behind:
            # The register cannot hold this value.
            self._exists(now, width)
            if not self.latched:
                deadline = SourceTime(now + _sign_extended(deadline - now, width))
        if timebase.adjust:
            return HostTime(deadline + self._clock.origin + timebase.adjust)
        if deadline is not self._expires_at:
            self._expires_at, self._expiry = deadline, self._clock.at(deadline)
        return self._expiry

    def load(self, expiry: HostTime, now: SourceTime | None = None) -> None:
        """Set DEC from the `expiry` that was kept, on entry at tick `now`, or at the present one. If the
        expiry is past, latch the exception, however long ago it was.
        """
        if now is None:
            now = self._source.ticks()
        if expiry is not self._expiry:
            self._expires_at, self._expiry = self._clock.ticks_at(expiry, now), expiry
        deadline = self.deadline = self._expires_at
        self._seen = now
        self.latched = deadline < now

    def _exists(self, now: SourceTime, width: DecWidth) -> bool:
        left = self.deadline - now
        if left < -(1 << (width - 1)) and self.deadline >= self._seen and not self._source.is_virtual:
            self.latched = True
        self._seen = now
        return self.latched or _sign_extended(left, width) < 0


def rebased(expiry: HostTime, old: Offset, new: Offset) -> HostTime:
    """Return the host value of an expiry whose guest value stays while the offset changes from `old` to
    `new`.

    Every expiry that is kept while an offset is set goes through this function.
    """
    return (expiry + old) - new


def remaining(expiry: HostTime, now: HostTime) -> Ticks:
    """Return the ticks until `expiry`; negative if it is past, so that the timer is pending. Valid within
    2^63 ticks (570 years).
    """
    return expiry - now


def _sign_extended(value: int, width: int) -> int:
    half = 1 << (width - 1)
    return ((value + half) & ((1 << width) - 1)) - half
