"""Takes regions from the disk, or has them compiled, and puts them in: one thread for the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from functools import cache, cached_property, partial
from queue import SimpleQueue

from chronovisor.engine.native import code_cache, compiler
from chronovisor.engine.native.compile_service import CompileService, Taker
from chronovisor.engine.native.layout import PAGE_SHIFT
from chronovisor.engine.native.lowering import Mode
from chronovisor.engine.native.pages import Snapshot
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
from chronovisor.engine.regions.heat import Task
from chronovisor.engine.regions.placing import Loaded, load, put_in, snapshots_of
from chronovisor.engine.statistics import REGIONS

#: The most processes that compile regions. Each takes a tenth of a gigabyte.
_MOST_PROCESSES = 4


class Worker:
    """Looks for regions on disk, has them compiled, and links them: one thread for the process."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[list[Task]] = SimpleQueue()
        self._service = CompileService(compile_server.__name__, code=REGIONS, processes=_processes())
        #: What is to be compiled: the hottest page is first, not the one that was hot first. The process that
        #: compiles may have little time on a busy machine.
        self._waiting: list[Task] = []
        #: The regions of each home page that is known.
        self._known: dict[str, list[Loaded]] = {}
        self._changing = threading.Lock()
        threading.Thread(target=self._serve, name="regions", daemon=True).start()

    def put(self, tasks: list[Task]) -> None:
        """See to some pages."""
        self._tasks.put(tasks)

    def _serve(self) -> None:
        while True:
            for task in self._tasks.get():
                self._see_to(task)

    def _see_to(self, task: Task) -> None:
        if not self._is_known(task):
            with self._changing:
                self._waiting.append(task)
            self._service.ask_in_turn(self._prepare)

    def _is_known(self, task: Task) -> bool:
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
            _put_in(task, home, known)
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
        mode, snapshots = pages.library.mode, snapshots_of(pages, task.page, {0, *task.around})
        contents = {n: one.content for n, one in snapshots.items()}
        known = self._regions(page_name(mode, page_digest(contents[0])))
        # Those that came while the task waited are seen to as well.
        with task.counts.counting:
            starts = tuple(sorted({*task.starts, *task.heat.take_missed()})) if task.starts else ()
        stops = {entry for one in known for entry in one.region.entries} - set(starts)
        wanted = WantedRegion(mode, contents, task.hot, starts, tuple(sorted(stops)))
        return compile_server.request(wanted), partial(self._take, task, mode, snapshots[0])

    def _take(self, task: Task, mode: Mode, home: Snapshot, code: bytes | None) -> None:
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
        _put_in(task, home, [made])


def _put_in(task: Task, home: Snapshot, loaded: Iterable[Loaded]) -> None:
    """Put regions in, if the guest is still there and its pages have the code that they were made of."""
    if (pages := task.pages()) is None:
        return
    for one in loaded:
        others = snapshots_of(pages, task.page, (n for n in one.region.pages if n and n in task.around))
        if put_in(pages, {0: home, **others}, one):
            with task.counts.counting:
                task.counts.regions += bool(one.handlers) and id(one) not in task.heat.put
            task.heat.put.add(id(one))
            task.heat.cover(o for o in one.region.covered if o >> PAGE_SHIFT == 0)
    task.heat.waits = False


def _processes() -> int:
    """How many processes compile regions: half of the machine's processors are the guests'."""
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2))


@cache
def worker() -> Worker:
    """The process's one."""
    return Worker()
