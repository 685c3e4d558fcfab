"""Advice on a timebase offset: what to set on a host's KVM so that a guest's time goes on, and what comes
of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from chronovisor.timebase.types import GRANULE, MASK64, GuestTime, HostTime, Offset, Ticks, signed64


@dataclass(frozen=True, slots=True)
class Choice:
    """An offset that a kernel keeps as it is set, and what it does to the guest."""

    offset: Offset
    error: Ticks
    """The guest's time less what it ought to be: positive where the guest is put forward."""
    guest_time: GuestTime
    """What the guest reads first."""
    steps_back: bool
    """Whether that is less than what it read last."""
    wait: Ticks
    """How long to hold the guest so that it does not step back."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What an offset ought to be, and the multiples of 2^24 around it."""

    wanted: int
    """The exact offset in ticks, modulo 2^64; KVM_REG_PPC_TB_OFFSET may be set to it."""
    kernel: Choice
    """What the kernel makes of it: rounded up."""
    nearest: Choice
    """The offset of the least error, to be set itself; the kernel's own where that has it."""

    @property
    def wanted_signed(self) -> int:
        """The exact offset in ticks, -2^63 to 2^63-1."""
        return signed64(self.wanted)


_NO_TIME = Ticks(0)


def advise(stopped: GuestTime, now: HostTime, elapsed: Ticks = _NO_TIME) -> Advice:
    """Advise on the offset of a guest whose timebase was `stopped`, on a host whose timebase is `now`.

    `elapsed` is the time from the one reading to the other; raises `ValueError` where it is negative.
    """
    if elapsed < Ticks(0):
        raise ValueError(f"the time elapsed is {elapsed.value} ticks: give one that is not negative")
    wanted = ((stopped + elapsed).value - now.value) & MASK64

    def choice(offset: Offset) -> Choice:
        error = Ticks(signed64(offset.value - wanted))
        step = elapsed + error
        return Choice(offset, error, now + offset, step < Ticks(0), Ticks(max(0, -step.value)))

    up = choice(Offset.rounded_up(wanted))
    nearest = choice(up.offset - Offset(GRANULE)) if up.error > Ticks(GRANULE // 2) else up
    return Advice(wanted, up, nearest)
