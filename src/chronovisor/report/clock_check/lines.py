"""The lines that the guest's half prints: read, checked against their checksums, and bounded."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

LONGEST: Final = 1024
"""Bytes of a console line that are looked at; the guest's half prints at most 480."""
CLOCKS: Final[tuple[str, ...]] = ("mono", "raw", "boot", "real")
"""The clocks that are followed, by their names in a sample."""
COARSE: Final[dict[str, str]] = {"monoc": "mono", "realc": "real"}
"""The coarse clocks, and the fine clocks that they follow."""
_MARK: Final = b"cc1 "
_SUM: Final = re.compile(rb" sum=([0-9a-f]{8})$")
_FIELD: Final = re.compile(r"([a-z]{1,16})=([!-~]{1,80})")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")
_WORDS: Final = frozenset(("arch", "kernel", "clock", "via"))
_U64: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Hello:
    """The first line: what the guest is."""

    arch: str
    kernel: str
    cpus: int
    frequency: int
    """The counter's ticks per second; 0: unknown."""
    interval: int
    """Nanoseconds from sample to sample."""
    vdso: bool
    """Whether the guest's kernel has a vDSO."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of all clocks, and the counts since the start of the program."""

    seq: int
    cpu: int
    counter: int
    """The hardware's counter before the clocks were read, in ticks."""
    span: int
    """Ticks that it took to read the clocks."""
    frequency: int
    interval: int
    clocks: dict[str, int]
    """Nanoseconds by the clock's name, of `CLOCKS` and `COARSE`. A clock that the kernel lacks is missing."""
    late: int
    """Nanoseconds by which the timer was late; negative: early."""
    lost: int
    skipped: int
    """Wakeups that were left out because their time had passed before they could be waited for."""
    backs: int


@dataclass(frozen=True, slots=True)
class Back:
    """A clock that the guest saw go back."""

    seq: int
    cpu: int
    clock: str
    via: str
    """How the later value was read: vdso, call or counter."""
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The last line: the counts of the whole run."""

    seq: int
    backs: int
    early: int
    lost: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Torn:
    """A line that began as one of these but is damaged."""


Line: TypeAlias = Hello | Sample | Back | Bye | Torn


def parse(line: bytes) -> Line | None:
    """Return what a line of the console says, or None if the line is not from the guest's half.

    A message of the kernel's may come first in the line. A damaged line is `Torn`.
    """
    begin = line[:LONGEST].rfind(_MARK)
    if begin < 0:
        return None
    line = line[begin:].rstrip(b"\r\n")
    found = _SUM.search(line) if len(line) <= LONGEST else None
    if found is None or int(found[1], 16) != zlib.crc32(line[: found.start()]):
        return Torn()
    words = line[: found.start()].decode("ascii", "replace").split(" ")
    try:
        return _READERS[words[1]](_fields(words[2:]))
    except (KeyError, ValueError, IndexError):
        return Torn()


def _fields(words: list[str]) -> dict[str, int | str]:
    fields: dict[str, int | str] = {}
    for word in words:
        found = _FIELD.fullmatch(word)
        if found is None:
            raise ValueError(word)
        name, value = found.groups()
        fields[name] = value if name in _WORDS else _number(value)
    return fields


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not -_U64 < int(text) < _U64:
        raise ValueError(text)
    return int(text)


def _hello(fields: dict[str, int | str]) -> Hello:
    return Hello(
        str(fields["arch"]),
        str(fields["kernel"]),
        int(fields["cpus"]),
        int(fields["freq"]),
        int(fields["interval"]),
        bool(fields["vdso"]),
    )


def _sample(fields: dict[str, int | str]) -> Sample:
    clocks = {name: int(fields[name]) for name in (*CLOCKS, *COARSE) if name in fields}
    if "mono" not in clocks:
        raise ValueError("a sample has no CLOCK_MONOTONIC")
    seq, cpu, counter, span, frequency, interval = (
        int(fields[name]) for name in ("seq", "cpu", "tb", "span", "freq", "interval")
    )
    late, lost, skipped, backs = (int(fields[name]) for name in ("late", "lost", "skipped", "backs"))
    return Sample(seq, cpu, counter, span, frequency, interval, clocks, late, lost, skipped, backs)


def _back(fields: dict[str, int | str]) -> Back:
    seq, cpu, before, after = (int(fields[name]) for name in ("seq", "cpu", "from", "to"))
    return Back(seq, cpu, str(fields["clock"]), str(fields["via"]), before, after)


def _bye(fields: dict[str, int | str]) -> Bye:
    return Bye(*(int(fields[name]) for name in ("seq", "backs", "early", "lost", "skipped")))


_READERS: Final[dict[str, Callable[[dict[str, int | str]], Line]]] = {
    "hello": _hello,
    "sample": _sample,
    "back": _back,
    "bye": _bye,
}
