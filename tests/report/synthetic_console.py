"""Consoles of made-up guests, whose clocks, delays and faults are known exactly."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

FREQUENCY = 512_000_000
INTERVAL = 100_000_000
START = 7_000_000_000
"""The guest's MONOTONIC at the first sample."""
REAL = 1_795_884_275_000_000_000
ALL = ("mono", "raw", "boot", "real", "tb")


def sealed(text: str) -> bytes:
    """A line with its checksum."""
    return f"{text} sum={zlib.crc32(text.encode()):08x}".encode()


@dataclass(frozen=True)
class MadeUp:
    """A guest that prints a sample every 100 ms by the host's clock."""

    delays: Sequence[int]
    """Of each sample's line: nanoseconds from its sample to its arrival."""
    rate: float = 0.0
    """The clocks' rate against the host's less 1."""
    steps: dict[int, int] = field(default_factory=dict)
    """By the number of the sample before which it comes: nanoseconds that all clocks step."""
    only: tuple[str, ...] = ALL
    """The clocks that step."""
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    """By the number of a sample: values of its fields. Counts keep their values in later samples."""

    def lines(self) -> Iterator[tuple[bytes, int]]:
        """The lines with the host's times at their arrivals, in the order of the arrivals."""
        yield sealed("cc1 hello arch=ppc64le kernel=6.1 cpus=2 freq=512000000 interval=100000000 vdso=1"), 0
        moved = dict.fromkeys(ALL, 0)
        counts = {"lost": 0, "skipped": 0, "backs": 0}
        arrived = 0
        for seq, delay in enumerate(self.delays):
            at = seq * INTERVAL
            for clock in self.only:
                moved[clock] += self.steps.get(seq, 0)
            counts |= {name: n for name, n in self.counts.get(seq, {}).items() if name != "late"}
            gone = at + round(at * self.rate)
            mono, raw, boot, real, tb = (START + gone + moved[clock] for clock in ALL)
            values = {
                "seq": seq,
                "cpu": seq % 2,
                "tb": tb * FREQUENCY // 10**9,
                "span": 250,
                "freq": FREQUENCY,
                "interval": INTERVAL,
                "mono": mono,
                "raw": raw,
                "boot": boot,
                "real": real + REAL,
                "late": 50_000,
                **counts,
                **self.counts.get(seq, {}),
            }
            arrived = max(arrived, at + delay)
            yield (
                sealed("cc1 sample " + " ".join(f"{name}={value}" for name, value in values.items())),
                arrived,
            )
        yield sealed(f"cc1 bye seq={len(self.delays)} backs=0 early=0 lost=0 skipped=0"), arrived
