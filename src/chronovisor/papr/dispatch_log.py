"""A dispatch trace log as it is found: the ring in a guest's memory, or the entries in a row as Linux hands
them out.

Linux (CONFIG_DTL) shows each processor's log as the file powerpc/dtl/cpu-N in debugfs: entries of 48 bytes,
oldest first, in the hypervisor's byte order. If Linux accounts for stolen time by the log
itself (CONFIG_VIRT_CPU_ACCOUNTING_NATIVE), they are copies of what its accounting has consumed. Otherwise the
file is the hypervisor's own ring. In either case a reader that falls behind loses entries, and the file does
not say how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chronovisor.papr.vpa import (
    DTL_ENTRY_SIZE,
    DispatchLogEntry,
    DispatchReason,
    PreemptReason,
    entries_in,
)

_HALF, _WHOLE = 1 << 63, 1 << 64


class LogFormatError(ValueError):
    """Bytes that cannot be a dispatch trace log; one line for people."""


@dataclass(frozen=True, slots=True)
class DispatchLog:
    """Entries of one log, oldest first."""

    entries: tuple[DispatchLogEntry, ...]
    first: int | None
    """The first entry's number, counted from 0 since the log was registered; None if unknown."""
    written: int | None = field(default=None, compare=False)
    """How many entries had been written when the log was read, these and others; None if unknown."""

    @property
    def lost(self) -> int | None:
        """How many earlier entries were overwritten; None if unknown."""
        return self.first


def from_stream(data: bytes) -> DispatchLog:
    """Return the log whose entries lie in a row, oldest first. LogFormatError for other bytes."""
    if len(data) % DTL_ENTRY_SIZE:
        whole, more = divmod(len(data), DTL_ENTRY_SIZE)
        raise LogFormatError(
            f"{len(data)} bytes are {whole} entries of {DTL_ENTRY_SIZE} bytes and {more} bytes of another: "
            "it was cut short, or is no dispatch trace log"
        )
    return DispatchLog(_unpacked(data), None)


def from_ring(ring: bytes, index: int) -> DispatchLog:
    """Return the log in a ring's bytes, of which `index` entries were written since it was registered.
    Nobody may write to it any more.

    LogFormatError for a ring that holds no entry.
    """
    return _between(ring, max(0, index - _places(ring)), index)


def from_ring_alone(ring: bytes) -> DispatchLog:
    """Return the log in a ring whose beginning is not known. It begins where its time goes back.

    Places that were never written (their time is 0) are left out. LogFormatError for a ring that holds no
    entry, or in which time goes back more than once.
    """
    _places(ring)
    entries = [entry for entry in _unpacked(ring) if entry.timebase]
    steps = [n for n in range(1, len(entries)) if _later(entries[n - 1], entries[n])]
    if len(steps) > 1:
        raise LogFormatError(
            f"time goes back {len(steps)} times in {len(entries)} entries, in a ring once at most: it is no "
            "dispatch trace log"
        )
    start = steps[0] if steps else 0
    return DispatchLog(tuple(entries[start:] + entries[:start]), None)


def read_ring(
    read: Callable[[int, int], bytes],
    length: int,
    read_index: Callable[[], int],
    start: int = 0,
    count: int | None = None,
    standing: bool = False,
) -> DispatchLog | None:
    """Return the log in a ring of `length` bytes, from entry number `start` on, `count` entries at most.

    Only these are read, by `read` (from which byte of the ring, how many bytes). If the ring does not have
    entry `start`, it is the oldest entry that counts. Unless the log is `standing`, its hypervisor may be
    writing: an entry is stored before the index that announces it, so the index read first says what is
    there, and the index read last says what of that may be gone. Each entry written in between, and the entry
    that may be half written now, took the place of the oldest. Return None if all was overwritten meanwhile.
    LogFormatError for a ring that holds no entry.
    """
    places = entries_in(length)
    if not places:
        raise LogFormatError(f"a log of {length} bytes holds no entry: one has {DTL_ENTRY_SIZE} bytes")
    spare = 0 if standing else 1
    before = read_index()
    oldest = max(0, before - places + spare)
    first = start if oldest <= start <= before else oldest
    end = before if count is None else min(before, first + count)
    data = b"".join(
        read(at * DTL_ENTRY_SIZE, size * DTL_ENTRY_SIZE) for at, size in _pieces(first, end, places)
    )
    after = read_index()
    oldest = max(0, after - places + spare)
    kept = max(first, oldest)
    wanted = start < before
    if after < before or kept > end or (kept == end and wanted):
        return None
    return DispatchLog(_unpacked(data)[kept - first :], kept, before)


def _pieces(first: int, end: int, places: int) -> list[tuple[int, int]]:
    """Return where the entries from `first` to before `end` lie in the ring, as (place, entries)."""
    at = first % places
    front = min(end - first, places - at)
    return [piece for piece in ((at, front), (0, end - first - front)) if piece[1]]


def problem(log: DispatchLog) -> str | None:
    """Return in one line what no hypervisor would write to a log; None if nothing is wrong."""
    for number, entry in enumerate(log.entries, log.first or 0):
        if not entry.timebase:
            return f"entry {number} has no time: it was never written, or this is no dispatch trace log"
        for what, code, codes in (
            ("dispatch", entry.dispatch_reason, DispatchReason),
            ("preempt", entry.preempt_reason, PreemptReason),
        ):
            if code not in {reason.value for reason in codes}:
                return f"entry {number}: there is no {what} reason {code}; is this a dispatch trace log?"
    for number, (one, next_one) in enumerate(
        zip(log.entries, log.entries[1:], strict=False), (log.first or 0) + 1
    ):
        if _later(one, next_one):
            ticks = (one.timebase - next_one.timebase) % _WHOLE
            return f"entry {number} is {ticks} ticks before entry {number - 1}: time goes back"
    return None


def reason_name(reasons: type[DispatchReason] | type[PreemptReason], code: int) -> str:
    """Return a reason in words, and a code that has none as itself."""
    try:
        return reasons(code).name.lower().replace("_", " ")
    except ValueError:
        return f"reason {code}"


def ticks_since(first: DispatchLogEntry, entry: DispatchLogEntry) -> int:
    """Return the signed ticks from one entry to another; the timebase wraps at 2^64."""
    return (entry.timebase - first.timebase + _HALF) % _WHOLE - _HALF


def _between(ring: bytes, first: int, end: int) -> DispatchLog:
    places, entries = _places(ring), _unpacked(ring)
    return DispatchLog(tuple(entries[n % places] for n in range(first, end)), first)


def _later(one: DispatchLogEntry, next_one: DispatchLogEntry) -> bool:
    return ticks_since(one, next_one) < 0


def _places(ring: bytes) -> int:
    places = entries_in(len(ring))
    if not places:
        raise LogFormatError(f"a log of {len(ring)} bytes holds no entry: one has {DTL_ENTRY_SIZE} bytes")
    return places


def _unpacked(data: bytes) -> tuple[DispatchLogEntry, ...]:
    # A log may have any length. What follows its last whole entry is not written.
    starts = range(0, entries_in(len(data)) * DTL_ENTRY_SIZE, DTL_ENTRY_SIZE)
    return tuple(DispatchLogEntry.unpack(data[at : at + DTL_ENTRY_SIZE]) for at in starts)
