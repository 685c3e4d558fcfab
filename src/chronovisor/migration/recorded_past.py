"""What is kept of a recorded guest's past: the states at the beginnings of its stretches, and memory's pages.

It goes along when the guest moves to another process, so that the guest's past can be looked at there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from chronovisor.kvm.course import HiddenState, HostShape
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.memory import PAGE_SIZE
from chronovisor.memory.versions import PageVersions
from chronovisor.timebase.types import Offset, SourceTime

MOST_STRETCHES: Final = 4096
PAGES_AT_A_TIME: Final = 32
"""Pages in one part of the past that is sent."""


@dataclass(slots=True)
class Stretch:
    """A guest's course from one stop to the next."""

    host: HostShape
    """The host on which it ran."""
    tick: SourceTime
    """The clock's, at its beginning."""
    machine: MachineState
    vcpus: tuple[VcpuState, ...]
    offset: Offset
    hidden: HiddenState
    typed: bytes
    held_back: frozenset[int]
    stepping: frozenset[int]
    """The vCPUs that were to do one instruction."""
    end: SourceTime | None = None
    """The clock's tick at its end; None while it lasts."""
    executed: tuple[int, ...] = ()
    """How many instructions each vCPU has executed in it."""


@dataclass(frozen=True, slots=True)
class PageVersion:
    """What a page of the guest's memory held from the beginning of a stretch on."""

    stretch: int
    page: int
    contents: bytes


@dataclass(frozen=True, slots=True)
class PastPart:
    """A part of a guest's past: stretches that follow each other, from the number `first` on, and pages."""

    first: int
    stretches: tuple[Stretch, ...] = ()
    pages: tuple[PageVersion, ...] = ()


class RecordedPast:
    """The stretches and pages that are kept of one guest: at most `size` bytes of pages, unless the last
    stretch alone needs more.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pages = PageVersions()
        self.first = 0
        """The number of the first stretch that is kept."""
        self._stretches: list[Stretch] = []
        self._taken = (-1, -1)
        """Stretch and page of the page that was taken last."""

    def __len__(self) -> int:
        return len(self._stretches)

    @property
    def last(self) -> int:
        """The number of the last stretch; less than `first` if there is none."""
        return self.first + len(self._stretches) - 1

    def stretch(self, number: int) -> Stretch:
        """A stretch by its number."""
        return self._stretches[number - self.first]

    def begin(self, stretch: Stretch) -> None:
        """Add a stretch behind the last one."""
        self._stretches.append(stretch)

    def forget(self) -> None:
        """Forget all stretches. Pages stay: they are what the next one begins with."""
        self.first += len(self._stretches)
        self._stretches.clear()

    def stay_small(self) -> None:
        """Forget the oldest stretches if there are too many, or if too much is kept."""
        while len(self._stretches) > MOST_STRETCHES or (
            self.pages.size > self.size and len(self._stretches) > 1
        ):
            # Many at once, because each time all pages are looked at.
            forgotten = (len(self._stretches) + 3) // 4
            del self._stretches[:forgotten]
            self.first += forgotten
            self.pages.forget_before(self.first)

    # Sent to another process

    def parts(self) -> Iterator[PastPart]:
        """Give all of it, of a guest that is stopped, in parts: all stretches, then the pages."""
        for number in range(self.first, self.last + 1):
            yield PastPart(number, (self.stretch(number),))
        pages: list[PageVersion] = []
        for version in self.pages.each():
            pages.append(PageVersion(*version))
            if len(pages) == PAGES_AT_A_TIME:
                yield PastPart(self.first, pages=tuple(pages))
                pages.clear()
        yield PastPart(self.first, pages=tuple(pages))

    def take(self, part: PastPart, memory_size: int, vcpus: int) -> None:
        """Add the next part of the past of a guest with so many bytes of memory and vCPUs.

        ValueError for what cannot be one. What is too much is forgotten.
        """
        for number, stretch in enumerate(part.stretches, part.first):
            if self._stretches and number != self.last + 1:
                raise ValueError(f"stretch {number} of the guest's past comes behind stretch {self.last}")
            _check(stretch, vcpus)
            if not self._stretches:
                self.first = number
            self.begin(stretch)
        for version in part.pages:
            taken, self._taken = self._taken, (version.stretch, version.page)
            if version.stretch > self.last or self._taken <= taken:
                raise ValueError(f"page {version.page:#x} of the guest's past comes out of turn")
            if (version.page + 1) * PAGE_SIZE > memory_size:
                raise ValueError(f"the guest's past has a page {version.page:#x}, which its memory does not")
            self.pages.note(version.stretch, version.page, version.contents)
        self.stay_small()


def _check(stretch: Stretch, vcpus: int) -> None:
    hidden, core_count = stretch.hidden, len(stretch.hidden.timebases)
    host = stretch.host
    of_each = (stretch.vcpus, stretch.executed, hidden.prodded, hidden.reservations, stretch.machine.stopped)
    if any(len(values) != vcpus for values in of_each):
        raise ValueError("a stretch of the guest's past has another number of vCPUs than the guest")
    if core_count not in (host.cores, host.cores * host.threads_per_core):
        raise ValueError("a stretch of the guest's past has another number of cores than its host")
    if any(state.id != number for number, state in enumerate(stretch.vcpus)):
        raise ValueError("a stretch of the guest's past has vCPUs that the guest does not have")
