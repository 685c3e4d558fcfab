"""Finds where a guest is hot, has regions compiled there, and puts them in.

A thread's native code leaves samples of where it is. A thread of this process takes regions from the disk or
has another process compile them; nothing waits for it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from queue import SimpleQueue
from weakref import ReferenceType, ref

from chronovisor.engine.native import code_cache, compiler
from chronovisor.engine.native.code_space import code_space
from chronovisor.engine.native.compile_service import CompileService, Taker
from chronovisor.engine.native.layout import PAGE_SHIFT, SAMPLES, TLB_ENTRIES, FetchEntry, Sample, Tlb
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pages import DecodedPages, Snapshot
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.regions import compile_server
from chronovisor.engine.regions.compile import (
    CompiledRegion,
    WantedRegion,
    decode_page,
    encode_page,
    fingerprint,
    page_digest,
    page_name,
)
from chronovisor.engine.statistics import REGIONS

#: Samples in a page, outside its regions, after which a region is compiled.
HOT = 2
#: Samples of runs of handlers in code that regions have, after which regions begin where these runs did; and
#: among how many of the guest's samples they have to be.
MISSED = 4
MISSED_WITHIN = 1024
#: How many regions a guest gets, and for how many hot pages they are looked for: new code may never end.
MOST_REGIONS = 1 << 14
MOST_LOOKS = 1 << 16
#: Of so many samples of a guest each counts half as much as the one after them: what was hot once cools down.
_HALF_LIFE = 1024
#: The pages that a region may have besides its home page: so many before it and behind it.
_BEFORE, _BEHIND = 8, 16
#: The most processes that compile regions. Each takes a tenth of a gigabyte.
_MOST_PROCESSES = 4


@dataclass(frozen=True)
class Loaded:
    """A region's machine code in this process: the addresses of its entries' handlers, in their order."""

    region: CompiledRegion
    handlers: tuple[int, ...]


@dataclass
class _Heat:
    """What is known of a page whose code has this version."""

    version: int
    samples: Counter[int] = field(default_factory=Counter)
    covered: set[int] = field(default_factory=set)
    missed: Counter[int] = field(default_factory=Counter)
    """Where handlers took over that came to covered code."""
    missed_since: int = 0
    """The guest's sample that was the first of them."""
    put: set[int] = field(default_factory=set)
    """The regions that were put in, by what Python's `id` says of them: they stay as long as the process."""
    started: set[int] = field(default_factory=set)
    """Where regions were asked to begin."""
    asked: bool = False
    """Whether its regions were looked for on disk."""
    waits: bool = False
    """Whether a region is being made."""
    _warmth: float = 0.0
    _moment: int = 0

    def warm(self, moment: int) -> None:
        """Take a sample that asks for a region: the guest's sample of this number."""
        self._warmth, self._moment = self.warmth(moment) + 1, moment

    def take_missed(self) -> tuple[int, ...]:
        """Where handlers took over, in order: regions are asked to begin there now.

        The caller holds `RegionTier.counting`.
        """
        missed, self.missed = self.missed, Counter()
        self.started.update(missed)
        return tuple(sorted(missed))

    def warmth(self, moment: int) -> float:
        """How many samples came lately, when the guest's latest has this number."""
        return self._warmth * math.exp2((self._moment - moment) / _HALF_LIFE)


@dataclass(frozen=True)
class _Task:
    """A page that is hot."""

    tier: RegionTier
    pages: ReferenceType[DecodedPages]
    """A task that waits keeps no guest that is gone, whose memory they hold."""
    heat: _Heat
    page: int
    """The number of the home page."""
    around: tuple[int, ...]
    """The distances of the pages that a region may have."""
    hot: int | None
    """The offset for which a region is to be compiled; None: take what is on disk."""
    starts: tuple[int, ...] = ()
    """The offsets at which the region is to begin, if the tier knows."""

    @property
    def warmth(self) -> float:
        """How much of its time the guest lately spent in the page."""
        return self.heat.warmth(self.tier.samples)


class RegionTier:
    """The regions of one guest."""

    def __init__(self) -> None:
        #: Held while samples are counted: each of the guest's threads hands in its own.
        self.counting = threading.Lock()
        self._heats: dict[tuple[int, int], _Heat] = {}
        self.count = 0
        """How many regions were put in."""
        self.samples = 0
        """How many samples were taken."""
        self._looks = 0
        self._asked: list[_Task] = []
        """What the look that is under way asks the worker to see to."""

    def look(self, thread: NativeThread, pages_by_table: Mapping[int, DecodedPages]) -> None:
        """Take a thread's samples, and the pages that are executed for the first time.

        The Python thread that runs the thread calls this.
        """
        with self.counting:
            self._look(thread, pages_by_table)
            asked, self._asked = self._asked, []
        if asked:
            # All at once: a thread that is woken wants Python's lock.
            _worker().put(asked)

    def _look(self, thread: NativeThread, pages_by_table: Mapping[int, DecodedPages]) -> None:
        for pages in pages_by_table.values():
            for page in pages.take_new():
                self._begin(pages, page)
        count = thread.sample_count
        first = max(thread.samples_taken, count - SAMPLES)
        thread.samples_taken = count
        for number in range(first, count):
            sample = thread.samples[number % SAMPLES]
            for table, pages in pages_by_table.items():
                page = (sample.entry - table) >> 3
                if 0 <= page < len(pages.table):
                    self._sampled(pages, page, sample)

    def _heat(self, pages: DecodedPages, page: int) -> _Heat:
        key, version = (pages.address, page), pages.version(page)
        heat = self._heats.get(key)
        if heat is None or heat.version != version:
            heat = self._heats[key] = _Heat(version)
        return heat

    def _begin(self, pages: DecodedPages, page: int) -> None:
        """Have a page's regions put in that are on disk."""
        heat = self._heat(pages, page)
        if not heat.asked and not self._is_full():
            heat.asked = heat.waits = True
            self._start(pages, page, heat)

    def _sampled(self, pages: DecodedPages, page: int, sample: Sample) -> None:
        heat, offset = self._heat(pages, page), self._executed(pages, page, sample)
        if offset is None:
            return
        pages.assemble(page, offset)
        self.samples += 1
        if offset not in heat.covered:
            heat.warm(self.samples)
        if self._is_full():
            return
        if offset in heat.covered:
            self._missed(pages, page, heat, sample)
            return
        heat.samples[offset] += 1
        if heat.waits:
            return
        if not heat.asked:
            self._begin(pages, page)
        elif heat.samples.total() >= HOT:
            heat.waits = True
            ((hot, _),) = heat.samples.most_common(1)
            heat.samples.clear()
            self._start(pages, page, heat, hot, sample)

    @staticmethod
    def _executed(pages: DecodedPages, page: int, sample: Sample) -> int | None:
        """The offset of code that handlers executed; None if the sample does not tell.

        If the thread left the page, or came to a region, handlers had executed what was before.
        """
        offset: int = sample.offset
        if offset < 1 << PAGE_SHIFT and not pages.begins_region(page, offset):
            return offset
        start = pages.offset_of(page, sample.handlers_from)
        return None if start is None or pages.begins_region(page, start) else start

    def _missed(self, pages: DecodedPages, page: int, heat: _Heat, sample: Sample) -> None:
        """Take a sample in code that a region has: if handlers came to it, a region is to begin there too."""
        start = pages.offset_of(page, sample.handlers_from)
        if start is None or pages.begins_region(page, start):
            return
        if start in heat.started:
            if heat.waits:
                heat.warm(self.samples)
            return
        if self.samples - heat.missed_since >= MISSED_WITHIN:
            heat.missed.clear()
            heat.missed_since = self.samples
        heat.missed[start] += 1
        heat.warm(self.samples)
        if heat.missed.total() >= MISSED and not heat.waits:
            starts = heat.take_missed()
            heat.waits = True
            self._start(pages, page, heat, starts[0], sample, starts)

    def _is_full(self) -> bool:
        return self.count >= MOST_REGIONS or self._looks >= MOST_LOOKS

    def _start(
        self,
        pages: DecodedPages,
        page: int,
        heat: _Heat,
        hot: int | None = None,
        sample: Sample | None = None,
        starts: tuple[int, ...] = (),
    ) -> None:
        self._looks += 1
        around = [n for n in range(-_BEFORE, _BEHIND + 1) if 0 <= page + n < pages.count]
        if sample is not None and sample.base >> PAGE_SHIFT != page:
            around = [n for n in around if n == 0 or _is_mapped(sample, n)]
        self._asked.append(_Task(self, ref(pages), heat, page, tuple(around), hot, starts))

    def put_in(self, task: _Task, home: Snapshot, loaded: Iterable[Loaded]) -> None:
        """Put regions in, if the guest is still there and its pages have the code that they were made of."""
        if (pages := task.pages()) is None:
            return
        for one in loaded:
            others = _snapshots(pages, task.page, (n for n in one.region.pages if n and n in task.around))
            if put_in(pages, {0: home, **others}, one):
                with self.counting:
                    self.count += bool(one.handlers) and id(one) not in task.heat.put
                task.heat.put.add(id(one))
                task.heat.covered.update(o for o in one.region.covered if o >> PAGE_SHIFT == 0)
        task.heat.waits = False


def _snapshots(pages: DecodedPages, home: int, distances: Iterable[int]) -> dict[int, Snapshot]:
    """Those of some pages, as they are now, by their distance from the home page."""
    return {n: pages.snapshot(home + n) for n in distances}


def _is_mapped(sample: Sample, distance: int) -> bool:
    """Whether a page beside the sample's lay beside it in real memory too, as far as the TLB knows."""
    tlb = Tlb.from_address(sample.tlb)
    effective = (sample.base >> PAGE_SHIFT) + distance
    place = effective % TLB_ENTRIES
    known: FetchEntry = tlb.of_code[place]
    return bool(known.fetch == effective and known.data == sample.entry + 8 * distance)


def put_in(pages: DecodedPages, snapshots: Mapping[int, Snapshot], one: Loaded) -> bool:
    """Put a region in at the home page of the snapshots, if all its pages are there with its code."""
    if not all(page in snapshots for page in one.region.pages):
        return False
    made_of = [snapshots[page] for page in one.region.pages]
    if [page_digest(s.content) for s in made_of] != list(one.region.pages.values()):
        return False
    home = snapshots[0].page << PAGE_SHIFT
    entries = zip(one.region.entries, one.handlers, strict=True)
    return pages.put_in(made_of, {home + offset: handler for offset, handler in entries})


class _Worker:
    """Looks for regions on disk, has them compiled, and links them: one thread for the process."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[list[_Task]] = SimpleQueue()
        self._service = CompileService(compile_server.__name__, code=REGIONS, processes=_processes())
        #: What is to be compiled: the hottest page is first, not the one that was hot first. The process that
        #: compiles may have little time on a busy machine.
        self._waiting: list[_Task] = []
        #: The regions of each home page that is known.
        self._known: dict[str, list[Loaded]] = {}
        self._changing = threading.Lock()
        threading.Thread(target=self._serve, name="regions", daemon=True).start()

    def put(self, tasks: list[_Task]) -> None:
        """See to some pages."""
        self._tasks.put(tasks)

    def _serve(self) -> None:
        while True:
            for task in self._tasks.get():
                self._see_to(task)

    def _see_to(self, task: _Task) -> None:
        if not self._is_known(task):
            with self._changing:
                self._waiting.append(task)
            self._service.ask_in_turn(self._prepare)

    def _is_known(self, task: _Task) -> bool:
        """Put in what is known of the task's page; whether that is all that the task is about."""
        if (pages := task.pages()) is None:
            return True
        home = pages.snapshot(task.page)
        known = self._regions(page_name(pages.library.mode, page_digest(home.content)))
        if task.starts:
            is_all = set(task.starts) <= {start for one in known for start in one.region.starts}
        else:
            is_all = task.hot is None or any(task.hot in one.region.covered for one in known)
        if is_all:
            task.tier.put_in(task, home, known)
        return is_all

    @cached_property
    def _on_disk(self) -> frozenset[str]:
        """The names of pages that had regions on disk when this process began.

        Most pages have none. A look for each of their files would take longer than all that the files save.
        """
        return code_cache.kept_names(fingerprint())

    def _regions(self, name: str) -> list[Loaded]:
        if name not in self._known:
            kept = code_cache.kept(name, fingerprint()) if name in self._on_disk else None
            with self._changing:
                if name not in self._known:
                    found = [load(one) for one in decode_page(kept)] if kept else []
                    REGIONS.add_kept(sum(bool(one.handlers) for one in found))
                    self._known[name] = found
        return self._known[name]

    def _prepare(self) -> tuple[dict[str, object], Taker] | None:
        with self._changing:
            task = max(self._waiting, key=lambda one: one.warmth)
            self._waiting.remove(task)
        # Meanwhile the guest may have ended, or its region may have been made for another.
        if self._is_known(task) or (pages := task.pages()) is None or task.hot is None:
            return None
        mode, snapshots = pages.library.mode, _snapshots(pages, task.page, {0, *task.around})
        contents = {n: one.content for n, one in snapshots.items()}
        known = self._regions(page_name(mode, page_digest(contents[0])))
        # Those that came while the task waited are seen to as well.
        with task.tier.counting:
            starts = tuple(sorted({*task.starts, *task.heat.take_missed()})) if task.starts else ()
        stops = {entry for one in known for entry in one.region.entries} - set(starts)
        wanted = WantedRegion(mode, contents, task.hot, starts, tuple(sorted(stops)))
        return compile_server.request(wanted), partial(self._take, task, mode, snapshots[0])

    def _take(self, task: _Task, mode: Mode, home: Snapshot, code: bytes | None) -> None:
        if code is None:
            task.heat.waits = False
            return
        made, name = load(CompiledRegion.decode(code)), page_name(mode, page_digest(home.content))
        REGIONS.add_compiled(bool(made.handlers))
        self._regions(name)
        # Other threads may have a region of the same page: none of them is lost, nor is one on disk.
        with compiler.FINISHING:
            with self._changing:
                known = self._known[name] = [*self._known[name], made]
            code_cache.keep(name, fingerprint(), encode_page([one.region for one in known]))
        task.tier.put_in(task, home, [made])


def load(region: CompiledRegion) -> Loaded:
    """Copy a region's code into executable memory."""
    begin = time.monotonic()
    at = code_space().put(region.code)
    REGIONS.add_linked(len(region.code), time.monotonic() - begin)
    return Loaded(region, tuple(at + place for place in region.places))


def _processes() -> int:
    """How many processes compile regions: half of the machine's processors are the guests'."""
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2))


@cache
def _worker() -> _Worker:
    return _Worker()
