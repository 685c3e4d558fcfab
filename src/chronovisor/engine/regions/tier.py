"""Finds the hot code of a guest, and has regions put in there.

A thread's native code leaves samples of what it executes, and Python takes them: some thousand a second.
Another thread of this process takes regions from the disk or has another process compile them; nothing waits
for it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from weakref import ref

from chronovisor.engine.native.layout import PAGE_SHIFT, TLB_ENTRIES, FetchEntry, Tlb
from chronovisor.engine.native.pages import DecodedPages
from chronovisor.engine.native.state import NativeThread, Taken
from chronovisor.engine.regions.heat import Counts, Heat, Task
from chronovisor.engine.regions.worker import worker

#: Samples in a page, outside its regions, after which a region is compiled.
HOT = 2
#: Samples of runs of handlers in code that regions have, after which regions begin where these runs did; and
#: among how many of the guest's samples they have to be.
MISSED = 4
MISSED_WITHIN = 1024
#: How many regions a guest gets, and for how many hot pages they are looked for: new code may never end.
MOST_REGIONS = 1 << 14
MOST_LOOKS = 1 << 16
#: The pages that a region may have besides its home page: so many before it and behind it.
_BEFORE, _BEHIND = 8, 16

_FETCH_ENTRY = struct.Struct(f"{len(FetchEntry._fields_)}Q")


class RegionTier:
    """The regions of one guest."""

    def __init__(self) -> None:
        self.counts = Counts()
        #: What is known of pages, by the addresses of their entries in the tables of decoded pages.
        self._heats: dict[int, Heat] = {}
        self._looks = 0
        self._asked: list[Task] = []
        """What the look that is under way asks the worker to see to."""

    def look(self, thread: NativeThread, pages_by_table: Mapping[int, DecodedPages]) -> None:
        """Take a thread's samples, and the pages that are executed for the first time.

        The Python thread that runs the thread calls this.
        """
        with self.counts.counting:
            self._look(thread, pages_by_table)
            asked, self._asked = self._asked, []
        if asked:
            # All at once: a thread that is woken wants Python's lock.
            worker().put(asked)

    def _look(self, thread: NativeThread, pages_by_table: Mapping[int, DecodedPages]) -> None:
        for pages in pages_by_table.values():
            for page in pages.take_new():
                self._begin(pages, page, self._heat(pages, page))
            pages.provide_room()
        self.counts.samples += thread.take_counted()
        latest: DecodedPages | None = None
        for sample in thread.take_samples():
            # Most samples are of the mode of the one before.
            if latest is None or not _has_entry(latest, sample[0]):
                latest = next((p for p in pages_by_table.values() if _has_entry(p, sample[0])), None)
            if latest is not None:
                self._sampled(latest, (sample[0] - latest.address) >> 3, sample)

    def _heat(self, pages: DecodedPages, page: int) -> Heat:
        entry, version = pages.address + 8 * page, pages.version(page)
        heat = self._heats.get(entry)
        if heat is None or heat.version != version:
            heat = self._heats[entry] = Heat(version, pages.lines.notes[page])
        return heat

    def _begin(self, pages: DecodedPages, page: int, heat: Heat) -> None:
        """Have a page's regions put in that are on disk."""
        if not heat.asked and not self._is_full():
            heat.asked = heat.waits = True
            self._start(pages, page, heat)

    def _sampled(self, pages: DecodedPages, page: int, sample: Taken) -> None:
        heat, counts, offset = self._heat(pages, page), self.counts, sample[2]
        counts.samples += 1
        is_covered = offset in heat.covered
        if not is_covered:
            heat.warm(counts.samples)
        if self._is_full():
            return
        if is_covered:
            self._missed(pages, page, heat, sample)
            return
        heat.samples[offset] += 1
        if heat.waits:
            return
        if not heat.asked:
            self._begin(pages, page, heat)
        elif heat.samples.total() >= HOT:
            heat.waits = True
            ((hot, _),) = heat.samples.most_common(1)
            heat.samples.clear()
            self._start(pages, page, heat, hot, sample)

    def _missed(self, pages: DecodedPages, page: int, heat: Heat, sample: Taken) -> None:
        """Take a sample in code that a region has: if handlers came to it, a region is to begin there too."""
        start = _handlers_from(pages, page, sample[4])
        if start is None:
            return
        samples = self.counts.samples
        if start in heat.started:
            if heat.waits:
                heat.warm(samples)
            return
        if samples - heat.missed_since >= MISSED_WITHIN:
            heat.missed.clear()
            heat.missed_since = samples
        heat.missed[start] += 1
        heat.warm(samples)
        if heat.missed.total() >= MISSED and not heat.waits:
            starts = heat.take_missed()
            heat.waits = True
            self._start(pages, page, heat, starts[0], sample, starts)

    def _is_full(self) -> bool:
        return self.counts.regions >= MOST_REGIONS or self._looks >= MOST_LOOKS

    def _start(
        self,
        pages: DecodedPages,
        page: int,
        heat: Heat,
        hot: int | None = None,
        sample: Taken | None = None,
        starts: tuple[int, ...] = (),
    ) -> None:
        self._looks += 1
        around = [n for n in range(-_BEFORE, _BEHIND + 1) if 0 <= page + n < pages.count]
        if sample is not None and sample[1] >> PAGE_SHIFT != page:
            mapped = _mapped(sample)
            around = [n for n in around if n == 0 or n in mapped]
        self._asked.append(Task(self.counts, ref(pages), heat, page, tuple(around), hot, starts))


def _has_entry(pages: DecodedPages, at: int) -> bool:
    """Whether the entry of a page at an address is one of these pages'."""
    return 0 <= at - pages.address < pages.size


def _handlers_from(pages: DecodedPages, page: int, record: int) -> int | None:
    """The offset at which handlers took over; None if that was in another page, or a region begins there."""
    start = pages.offset_of(page, record)
    return None if start is None or pages.begins_region(page, start) else start


def _mapped(sample: Taken) -> set[int]:
    """The distances of the pages that lie beside a sample's in real memory too, as far as its TLB knows."""
    entry, base, _, tlb, _ = sample
    effective, count, size = base >> PAGE_SHIFT, _BEFORE + 1 + _BEHIND, _FETCH_ENTRY.size
    at, place = tlb + Tlb.of_code.offset, (effective - _BEFORE) % TLB_ENTRIES
    before_end = min(count, TLB_ENTRIES - place)
    known = ctypes.string_at(at + size * place, size * before_end)
    known += ctypes.string_at(at, size * (count - before_end))
    return {
        n
        for n, (fetch, data) in enumerate(_FETCH_ENTRY.iter_unpack(known), -_BEFORE)
        if fetch == effective + n and data == entry + 8 * n
    }
