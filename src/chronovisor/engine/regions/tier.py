"""Finds where a guest is hot, has regions compiled there, and puts them in.

A thread's native code leaves samples of where it is. A thread of this process takes regions from the disk or
has another process compile them; nothing waits for it.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from queue import SimpleQueue

from chronovisor.engine.native import code_cache
from chronovisor.engine.native.compile_service import CompileService
from chronovisor.engine.native.layout import PAGE_SHIFT, SAMPLES
from chronovisor.engine.native.library import runtime
from chronovisor.engine.native.pages import DecodedPages, Retired
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.regions import compile_server
from chronovisor.engine.regions.compile import (
    SYMBOL,
    CompiledRegion,
    WantedRegion,
    decode_page,
    encode_page,
    fingerprint,
    page_name,
)
from chronovisor.memory.guest_memory import GuestMemory

#: Samples in a page, outside its regions, after which a region is compiled.
HOT = 4
#: Samples that are worth a look.
_FEW = 16
#: Regions of one guest: a guest that makes endless new code gets no more.
MOST_REGIONS = 4096


@dataclass(frozen=True)
class _Loaded:
    """A region's machine code in this process."""

    region: CompiledRegion
    address: int


@dataclass
class _Heat:
    """What is known of a page with these records."""

    records: Retired
    samples: Counter[int] = field(default_factory=Counter)
    covered: set[int] = field(default_factory=set)
    asked: bool = False
    """Whether its regions were looked for on disk."""
    waits: bool = False
    """Whether a region is being made."""


@dataclass
class _Task:
    """A page that is hot."""

    tier: RegionTier
    pages: DecodedPages
    page: int
    heat: _Heat
    content: bytes
    hot: int | None
    """The offset for which a region is to be compiled; None: take what is on disk."""


class RegionTier:
    """The regions of one guest."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._heats: dict[DecodedPages, dict[int, _Heat]] = {}
        self.count = 0
        """How many regions were put in."""
        self._lock = threading.Lock()

    def look(self, thread: NativeThread, pages_by_table: dict[int, DecodedPages]) -> None:
        """Take a thread's samples, if there are enough of them. Its own Python thread calls this."""
        count = thread.sample_count
        if count - thread.samples_taken < _FEW:
            return
        first = max(thread.samples_taken, count - SAMPLES)
        thread.samples_taken = count
        for number in range(first, count):
            entry, offset = thread.sample_pages[number % SAMPLES], thread.sample_offsets[number % SAMPLES]
            for table, pages in pages_by_table.items():
                page = (entry - table) >> 3
                if 0 <= page < len(pages.table):
                    self._sampled(pages, page, offset)

    def _sampled(self, pages: DecodedPages, page: int, offset: int) -> None:
        heats = self._heats.setdefault(pages, {})
        heat = heats.get(page)
        records = pages.records(page)
        if records is None:
            return
        if heat is None or heat.records is not records:
            heat = heats[page] = _Heat(records)
        if offset in heat.covered or heat.waits or self.count >= MOST_REGIONS:
            return
        heat.samples[offset] += 1
        if not heat.asked:
            heat.asked = heat.waits = True
            self._start(pages, page, heat, None)
        elif heat.samples.total() >= HOT:
            heat.waits = True
            (hot, _), *_ = heat.samples.most_common(1)
            heat.samples.clear()
            self._start(pages, page, heat, hot)

    def _start(self, pages: DecodedPages, page: int, heat: _Heat, hot: int | None) -> None:
        content = bytes(self._memory.data[page << PAGE_SHIFT : (page + 1) << PAGE_SHIFT])
        _worker().put(_Task(self, pages, page, heat, content, hot))

    def put_in(self, task: _Task, loaded: list[_Loaded]) -> None:
        """Put regions in, if the page's records are still those for which they were looked for."""
        with self._lock:
            for one in loaded:
                if task.pages.put_region(task.page, task.heat.records, one.address, one.region.entries):
                    self.count += bool(one.region.entries)
                task.heat.covered.update(one.region.covered)
        task.heat.waits = False


class _Worker:
    """Looks for regions on disk, has them compiled, and links them: one thread for the process."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._service = CompileService(compile_server.__name__, nice=True)
        #: The regions of each page content that is known.
        self._known: dict[str, list[_Loaded]] = {}
        self._changing = threading.Lock()
        threading.Thread(target=self._serve, name="regions", daemon=True).start()

    def put(self, task: _Task) -> None:
        """See to a page."""
        self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            task = self._tasks.get()
            name = page_name(task.pages.library.mode, task.content)
            if name not in self._known:
                kept = code_cache.kept(name, fingerprint())
                with self._changing:
                    self._known[name] = [] if kept is None else [_load(one) for one in decode_page(kept)]
            known = self._known[name]
            if task.hot is None or any(task.hot in one.region.covered for one in known):
                task.tier.put_in(task, known)
            else:
                wanted = WantedRegion(task.pages.library.mode, task.content, task.hot)
                self._service.ask(compile_server.request(wanted), partial(self._take, task, name))

    def _take(self, task: _Task, name: str, code: bytes | None) -> None:
        if code is None:
            task.heat.waits = False
            return
        made = _load(CompiledRegion.decode(code))
        with self._changing:
            known = self._known[name] = [*self._known[name], made]
            code_cache.keep(name, fingerprint(), encode_page([one.region for one in known]))
        task.tier.put_in(task, [made])


def _load(region: CompiledRegion) -> _Loaded:
    return _Loaded(region, runtime().load("region", region.code, SYMBOL) if region.entries else 0)


@cache
def _worker() -> _Worker:
    return _Worker()
