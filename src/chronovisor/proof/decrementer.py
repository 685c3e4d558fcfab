"""What is proven of decrementers: DEC stays the same function of guest time over exits, entries and moves,
and no timer is lost, early or late.

The bodies run `chronovisor.timebase.decrementer` on clocks whose readings are unknown.
"""

from __future__ import annotations

from functools import partial

from chronovisor.proof.paths import Case
from chronovisor.proof.prover import Claim, Tight
from chronovisor.proof.switch import any_offset
from chronovisor.proof.terms import Integers
from chronovisor.proof.unknown_time import UnknownCore
from chronovisor.timebase.decrementer import Decrementer, DecWidth, rebased
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import GuestTime, HostTime

LONGEST_STOP = 1 << 63
"""Ticks (570 years) up to which a signed difference tells whether an expiry is past or to come."""


NOT_TOO_LATE = "no timer is more than 2^63 ticks (570 years) late"


def any_width(case: Case) -> DecWidth:
    """Return one of the two widths. The claim is explored for both."""
    return 56 if case.any("DEC is large (LPCR[LD])", 0, 1) else 32


class _Guest:
    """A guest with one decrementer, on a core of one host after another."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._width = any_width(case)
        self.core = UnknownCore(case)
        self.offset = any_offset(case)
        self._decrementer = Decrementer(self.core.clock)

    def write_dec(self) -> GuestTime:
        """Let the guest write an unknown DEC. Return the guest time at which DEC then expires."""
        half = 1 << (self._width - 1)
        value = self._case.any("DEC written", -half, half - 1)
        self.core.time.ticks()
        self.core.time.still = True
        self._decrementer.write(value, self._width)
        expiry = GuestTime(self.now.value + value)
        self._case.tell(
            lambda: (
                f"{self.core.time.told()}the guest writes {value} into a DEC of {self._width} bits, "
                f"which is 0 at G = {expiry.value:#x}"
            )
        )
        self.core.time.still = False
        return expiry

    @property
    def now(self) -> GuestTime:
        """The guest's time, read on a core with host time: expiries are kept after the exit's switch."""
        return self.core.timebase.tod() + self.offset

    def leave(self) -> HostTime:
        """Keep the decrementer as its expiry."""
        return self._decrementer.expiry(HostTimebase(self.core.timebase), self._width)

    def enter(self, expiry: HostTime) -> None:
        """Load a decrementer from an expiry. Time stands still from then on, so that DEC can be compared."""
        self._decrementer = Decrementer(self.core.clock)
        self._decrementer.load(expiry)
        self.core.time.ticks()
        self.core.time.still = True

    def move(self) -> None:
        """Continue on another host: another clock, another offset."""
        self.core = UnknownCore(self._case, "H of the destination")
        self.offset = any_offset(self._case, "offset at the destination")

    def require_dec(self, expiry: GuestTime) -> None:
        """Require that DEC is the time left until `expiry`, in DEC's width."""
        mask = (1 << self._width) - 1
        left = expiry.value - self.now.value
        dec = self._decrementer.read(self._width)
        self._case.tell(
            lambda: (
                f"{self.core.time.told()}DEC reads {dec & mask:#x} at G = {self.now.value:#x}, "
                f"with {left & mask:#x} ticks left"
            )
        )
        self._case.require("DEC + G is what it was, in DEC's width", dec & mask == left & mask)


def through_an_exit(case: Case) -> None:
    """After an exit and an entry, however far apart, DEC is the same function of guest time."""
    guest = _Guest(case)
    expiry = guest.write_dec()
    guest.enter(guest.leave())
    guest.require_dec(expiry)


def through_a_move(case: Case) -> None:
    """After a move, DEC is the same function of guest time. The expiry travels as guest time."""
    guest = _Guest(case)
    expiry = guest.write_dec()
    travelling = guest.leave() + guest.offset
    guest.move()
    guest.enter(travelling - guest.offset)
    guest.require_dec(expiry)


def through_an_offset(case: Case) -> None:
    """If an offset is set, user space reads the same expiry as before."""
    guest = _Guest(case)
    guest.write_dec()
    kept = guest.leave()
    before, guest.offset = guest.offset, any_offset(case, "offset set")
    case.require(
        "the expiry in guest time is what it was",
        rebased(kept, before, guest.offset) + guest.offset == kept + before,
    )


def timer(case: Case, longest: int = LONGEST_STOP, wrapped: int = 0) -> None:
    """At an entry the exception exists if and only if the timer's time is past, however long ago."""
    core, width = UnknownCore(case), any_width(case)
    decrementer = Decrementer(core.clock)
    half = 1 << (width - 1)
    value = case.any("DEC written", -half, half - 1)
    deadline = core.time.ticks() + value
    core.time.still = True
    decrementer.write(value, width)
    core.time.still = False
    kept = decrementer.expiry(HostTimebase(core.timebase), width)
    case.assume(
        "at the exit, DEC has not yet counted down through all of its negative values",
        deadline - core.time.now >= -half - wrapped,
    )
    decrementer = Decrementer(core.clock)
    decrementer.load(kept)
    exists = decrementer.asserted(width)
    late = core.time.now - deadline
    case.assume(NOT_TOO_LATE, late <= longest)
    case.require("the exception exists if and only if DEC was -1", exists == (late > 0))


CLAIMS = (
    Claim(
        "decrementer-exit",
        "P7",
        "DEC stays the same function of guest time over an exit and an entry",
        through_an_exit,
    ),
    Claim("decrementer-move", "P7", "DEC stays the same function of guest time over a move", through_a_move),
    Claim(
        "decrementer-offset",
        "P7",
        "if an offset is set, user space reads the same expiry as before",
        through_an_offset,
    ),
    Claim(
        "decrementer-timer",
        "P7",
        "no timer is lost or early, however long the guest is not running",
        timer,
        (
            Tight(
                "the timer may be late by 570 years, plus the time for which DEC stays negative, plus a tick",
                partial(timer, longest=LONGEST_STOP + (1 << 55) + 1),
            ),
            Tight("DEC may have counted down one tick further", partial(timer, wrapped=1)),
        ),
        Integers(),
    ),
)
