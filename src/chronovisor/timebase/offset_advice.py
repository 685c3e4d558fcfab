"""Advice on a timebase offset: what to set on a host's KVM so that a guest's time continues, and what the
guest then sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from chronovisor.timebase.types import GRANULE, MASK64, GuestTime, HostTime, Offset, Ticks, signed64


@dataclass(frozen=True, slots=True)
class Choice:
    """An offset that a kernel keeps as it is set, and its effect on the guest."""

    offset: Offset
    error: Ticks
    """The guest's time minus the right time: positive if the guest is put forward."""
    guest_time: GuestTime
    """The guest's first reading."""
    steps_back: bool
    """Whether that is less than its last reading."""
    wait: Ticks
    """How long to hold the guest so that it does not step back."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The right offset, and the multiples of 2^24 around it."""

    wanted: int
    """The exact offset in ticks, modulo 2^64; KVM_REG_PPC_TB_OFFSET may be set to it."""
    kernel: Choice
    """The offset that the kernel makes of it: rounded up."""
    nearest: Choice
    """The offset with the least error, which can be set itself; it may be the kernel's choice."""

    @property
    def wanted_signed(self) -> int:
        """The exact offset in ticks, -2^63 to 2^63-1."""
        return signed64(self.wanted)


_NO_TIME = Ticks(0)


def advise(stopped: GuestTime, now: HostTime, elapsed: Ticks = _NO_TIME) -> Advice:
    """Advise on the offset of a guest whose timebase was `stopped`, on a host whose timebase is `now`.

    `elapsed` is the time between the two readings. Raises `ValueError` if it is negative.
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
