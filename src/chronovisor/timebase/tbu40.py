"""A core's timebase register and TBU40, the only way in which software may move it.

A write to TBU40 (SPR 286; Power ISA 3.0B, Book III, the chapter on timer facilities) replaces the upper 40
bits of the timebase and leaves the low 24 ticking, so that cores stay in step whatever is written. The
threads of a core share it.
"""

from __future__ import annotations

from typing import Any, NewType, Protocol, TypeVar

from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.types import LOW_MASK, MASK64, HostTime, signed64

V = TypeVar("V")


class TimebaseRegister(Protocol[V]):
    """The tiny register interface that the switch is written over.

    `V` is what a 64-bit word is where the switch runs: an int, a bit-vector of a prover, a value of
    generated code.
    """

    def read(self) -> V:
        """Return the timebase: 64 bits, ticks."""

    def write_tbu40(self, value: V, when: Any = True) -> None:
        """Where `when` holds, replace the upper 40 bits of the timebase by those of `value`; else do nothing.

        `when` is a truth of the kind that comparing two `V` gives.
        """


class NoTbu40Error(Exception):
    """The host's processor has no TBU40, so a guest's timebase cannot differ from the host's."""

    def __init__(self, what: str = "a timebase offset other than 0") -> None:
        super().__init__(
            f"{what} needs the TBU40 register, which this host's processor has not: "
            "its guests run with the host's own timebase (POWER6 and later have it)"
        )


class CoreTimebase:
    """The timebase register of one physical core, in ints: T = H + `adjust`, modulo 2^64.

    `adjust` (ticks, -2^63 to 2^63-1) is 0 on a core in the host, and the offset applied on one in a guest.
    Through `write_tbu40` alone it stays a multiple of 2^24.
    """

    def __init__(self, clock: HostClock, core: int = 0, has_tbu40: bool = True) -> None:
        self.clock = clock
        self.core = core
        self.has_tbu40 = has_tbu40
        self.adjust = 0

    def read(self) -> int:
        """Return the timebase T: 64 bits, ticks."""
        return (self.clock.source.ticks() + self.clock.origin + self.adjust) & MASK64

    def write_tbu40(self, value: int, when: bool = True) -> None:
        """Where `when`, replace the upper 40 bits of T by those of `value` (64 bits); the low 24 tick on.

        Raises `NoTbu40Error` where the core has no such register.
        """
        if not when:
            return
        if not self.has_tbu40:
            raise NoTbu40Error
        now = self.clock.source.ticks() + self.clock.origin
        low = (now + self.adjust) & LOW_MASK
        self.adjust = signed64(((value & ~LOW_MASK) | low) - now)

    def tod(self) -> HostTime:
        """Return the host's time H, which no write to TBU40 moves (the chip's time-of-day clock)."""
        return self.clock.now()

    def load_from_tod(self) -> HostTimebase:
        """Load T from the host's time, as firmware does after an error of the timebase: T = H again."""
        self.adjust = 0
        return HostTimebase(self)


HostTimebase = NewType("HostTimebase", CoreTimebase)
"""A core's timebase that is the host's: T = H. Whoever restores it gives this witness."""
