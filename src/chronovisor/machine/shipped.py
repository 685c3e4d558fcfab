"""The guests that come with Chronovisor: what each does, and which keys it understands.

Their sources are in guests/; `run`, `scan` and the other commands find them by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chronovisor.machine.files import SHIPPED


@dataclass(frozen=True, slots=True)
class ShippedGuest:
    """A guest that comes with Chronovisor, in either byte order."""

    name: str
    does: str
    keys: tuple[tuple[str, str], ...] = ()
    """What can be typed, and what the guest does then."""

    @property
    def images(self) -> list[str]:
        """The names of its images."""
        return sorted(path.name for path in SHIPPED.glob(f"{self.name}-?e.elf"))


GUESTS: Final = (
    ShippedGuest("hello", "says hello, takes one timer interrupt, powers off"),
    ShippedGuest(
        "demo",
        "watches its own time, and reports what it saw",
        (
            ("r", "report, in one line"),
            ("t", "print the timebase"),
            ("x", "make 100 calls to user space"),
            ("q", "report, and power off"),
        ),
    ),
    ShippedGuest(
        "load",
        "writes its memory at a steady rate",
        (("MIB RATE Enter", "write RATE MB a second to MIB mebibytes"),),
    ),
    ShippedGuest("bench", "measures how fast the machine is, and powers off"),
)
"""All of them. -le images are little-endian (ABI v2), -be images are big-endian (ABI v1)."""
