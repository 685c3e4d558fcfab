"""Numbers as people write them: memory sizes, durations, topologies, 64-bit values."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from chronovisor.machine.errors import MachineError
from chronovisor.memory import PAGE_SIZE
from chronovisor.timebase.types import FREQUENCY, Ticks

MINIMUM_MEMORY: Final = 1 << 20
MAXIMUM_VCPUS: Final = 256
THREADS_PER_CORE: Final = (1, 2, 4, 8)

_SIZE: Final = re.compile(r"(0x[0-9a-f]+|[0-9]+)([kmgt]?)(?:i?b)?", re.IGNORECASE)
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(s|ms|us|ns)", re.ASCII)
_PLACES: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_LONGEST_SECONDS: Final = 366 * 86_400
_UNITS: Final = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


class Topology(NamedTuple):
    """How many vCPUs a guest has, and how many of them share a virtual core."""

    vcpus: int
    threads: int

    @property
    def cores(self) -> int:
        """Virtual cores; the last may have fewer threads than the others."""
        return -(-self.vcpus // self.threads)


def parse_size(text: str | int) -> int:
    """A memory size in bytes from `64M`, `0x4000000`, `1GiB`, …; MachineError if it makes no sense."""
    size = text if isinstance(text, int) else parse_bytes(text, "memory size")
    if size < MINIMUM_MEMORY:
        raise MachineError(f"memory size {text} is too small: a guest needs at least 1M")
    if size % PAGE_SIZE:
        raise MachineError(f"memory size {text} is no multiple of {PAGE_SIZE} bytes")
    if size >> 60:
        raise MachineError(f"memory size {text} is more than real addresses can reach")
    return size


def parse_bytes(text: str, what: str) -> int:
    """A number of bytes from `64M`, `0x4000000`, `1GiB`, …; MachineError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise MachineError(f"{what} {text!r} is no size; write a number of bytes or 512K, 64M, 1G")
    return int(match[1], 0 if match[1].lower().startswith("0x") else 10) << _UNITS[match[2].lower()]


def parse_topology(text: str) -> Topology:
    """`N` or `N,threads=T`: a guest's vCPUs and the threads of each core; MachineError if it makes no
    sense.
    """
    match = re.fullmatch(r"\s*(\d+)\s*(?:,\s*threads\s*=\s*(\d+)\s*)?", text)
    if match is None:
        raise MachineError(f"vCPUs {text!r}: write a number, or a number and threads, as in 4,threads=2")
    return check_topology(int(match[1]), int(match[2] or 1))


def check_topology(vcpus: int, threads: int) -> Topology:
    """A topology that a host can make; MachineError for any other."""
    if not 1 <= vcpus <= MAXIMUM_VCPUS:
        raise MachineError(f"{vcpus} vCPUs: a guest has 1 to {MAXIMUM_VCPUS}")
    if threads not in THREADS_PER_CORE:
        raise MachineError(f"{threads} threads a core: a core has 1, 2, 4 or 8")
    if threads > 1 and vcpus % threads:
        raise MachineError(
            f"{vcpus} vCPUs do not fill cores of {threads} threads; take a multiple of {threads}"
        )
    return Topology(vcpus, threads)


def parse_duration(text: str, what: str) -> Ticks:
    """A duration from `20ms`, `1.5s`, `250us` or `40ns`, to the whole tick below; MachineError if it is
    none, negative, or longer than a year.
    """
    match = _DURATION.fullmatch(text.strip())
    ticks = None
    if match is not None:
        whole, _, fraction = match[1].partition(".")
        ticks = int(whole + fraction) * FREQUENCY // 10 ** (_PLACES[match[2]] + len(fraction))
    if ticks is None or ticks > _LONGEST_SECONDS * FREQUENCY:
        raise MachineError(f"{what} {text!r} is no duration; write 20ms, 1.5s or 250us")
    return Ticks(ticks)


def parse_u64(text: str | int, what: str) -> int:
    """A 64-bit value, decimal or 0x…, unsigned or negative in two's complement; MachineError for any other
    text.
    """
    if isinstance(text, int):
        value = text
    else:
        try:
            value = int(text.strip(), 0)
        except ValueError:
            raise MachineError(f"{what} {text!r} is no number; write it in decimal or as 0x…") from None
    if not -(1 << 63) <= value < 1 << 64:
        raise MachineError(f"{what} {text} is too wide: it has 64 bits")
    return value & ((1 << 64) - 1)
