"""A core's timebase register and TBU40, the only way for software to move it.

A write to TBU40 (SPR 286; Power ISA 3.0B, Book III, the chapter on timer facilities) replaces the upper 40
bits of the timebase and leaves the low 24 ticking, so that cores stay in step whatever is written. The
threads of a core share one timebase.
"""

from __future__ import annotations

from typing import Any, NewType, Protocol, TypeVar

from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.types import LOW_MASK, MASK64, HostTime, signed64

V = TypeVar("V")


class TimebaseRegister(Protocol[V]):
    """The small register interface that the switch is written over.

    `V` is the type of a 64-bit word: an int, a bit-vector of a prover, or a value in generated code.
    """

    def read(self) -> V:
        """Return the timebase: 64 bits, ticks."""

    def write_tbu40(self, value: V, when: Any = True) -> None:
        """If `when`, replace the upper 40 bits of the timebase by those of `value`; otherwise do nothing.

        `when` has the type that a comparison of two `V` returns.
        """


class NoTbu40Error(Exception):
    """The host's processor has no TBU40, so a guest's timebase cannot differ from the host's."""

    def __init__(self, what: str = "a timebase offset other than 0") -> None:
        super().__init__(
            f"{what} needs the TBU40 register, which this host's processor does not have: "
            "its guests run with the host's own timebase (POWER6 and later have it)"
        )


class CoreTimebase:
    """The timebase register of one physical core, in ints: T = H + `adjust`, modulo 2^64.

    `adjust` (ticks, -2^63 to 2^63-1) is 0 on a core in the host, and the applied offset on a core in a guest.
    It stays a multiple of 2^24 if only `write_tbu40` changes it.
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
        """If `when`, replace the upper 40 bits of T by those of `value` (64 bits); the low 24 bits tick on.

        Raises `NoTbu40Error` if the core has no such register.
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
