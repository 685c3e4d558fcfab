"""What the promises say of a guest's time, in a few lines that share nothing with the code they are held
against: integers, one clock, no switch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MASK: Final = (1 << 64) - 1
GRANULE: Final = 1 << 24
LIMIT: Final = 1 << 23


def signed(value: int) -> int:
    """The difference of two times, the nearer way round."""
    return ((value + (1 << 63)) & MASK) - (1 << 63)


def rounded(offset: int) -> int:
    """P3."""
    return (-(-offset // GRANULE) * GRANULE) & MASK


@dataclass
class ModelGuest:
    """A guest: what its owner gave it, and what it has seen."""

    origin: int
    """Its host's timebase at tick 0."""
    threads: int
    """vCPUs that share an offset."""
    offsets: list[int]
    """By virtual core."""
    expiries: list[int]
    """By vCPU: when DEC goes to -1, in guest time."""
    prodded: list[bool | None]
    """By vCPU: whether an H_PROD waits to be spent; None for who knows."""
    last: dict[int, int] = field(default_factory=dict)
    """By vCPU: its last reading since its owner last set an offset."""
    drift: int = 0
    """Its time less what that would be had no move ever rounded it."""

    def siblings(self, vcpu: int) -> range:
        """The vCPUs that share its offset."""
        first = vcpu - vcpu % self.threads
        return range(first, first + self.threads)

    def offset(self, vcpu: int) -> int:
        return self.offsets[vcpu // self.threads]

    def time(self, vcpu: int, tick: int) -> int:
        return (self.origin + tick + self.offset(vcpu)) & MASK

    def left(self, vcpu: int, tick: int) -> int:
        """DEC in as many bits as it takes."""
        return signed(self.expiries[vcpu] - self.time(vcpu, tick))

    def set_offset(self, vcpu: int, offset: int) -> None:
        """P3, P7: the last writer wins, and expiries stay in guest time. P4: it begins anew."""
        self.offsets[vcpu // self.threads] = rounded(offset)
        for number in self.siblings(vcpu):
            self.last.pop(number, None)
        self.drift = 0

    def floor(self, vcpu: int) -> int | None:
        """P4: what a reading of this vCPU must lie behind; if all have one offset, every reading there
        was.
        """
        alike = range(len(self.expiries)) if len(set(self.offsets)) == 1 else self.siblings(vcpu)
        seen = [self.last[number] for number in alike if number in self.last]
        return max(seen, key=lambda reading: signed(reading - seen[0])) if seen else None

    def moved(self, origin: int, offset: int, elapsed: int, advance: int) -> None:
        """What a move did, by the one true clock."""
        self.origin, self.offsets = origin, [offset] * len(self.offsets)
        # Not among KVM's registers.
        self.prodded = [False] * len(self.prodded)
        self.drift += advance - elapsed
