"""What a guest's pages held at several moments: each page is kept once for each change of its contents."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from chronovisor.memory.guest_memory import PAGE_SIZE

_ZEROS: Final = bytes(PAGE_SIZE)


class _Version(NamedTuple):
    moment: int
    contents: bytes


class PageVersions:
    """The pages of one guest at moments, which are rising numbers. A page that was never noted is zeros."""

    def __init__(self) -> None:
        self._pages: dict[int, list[_Version]] = {}
        self.size = 0
        """Bytes that are kept."""

    def note(self, moment: int, page: int, contents: bytes) -> None:
        """Note what a page holds from this moment on, which is not before any other that was noted."""
        versions = self._pages.setdefault(page, [])
        if contents == (versions[-1].contents if versions else _ZEROS):
            return
        versions.append(_Version(moment, _ZEROS if contents == _ZEROS else contents))
        self.size += PAGE_SIZE

    def each(self) -> Iterator[tuple[int, int, bytes]]:
        """Give all that is kept, as `note` takes it: moment, page, contents; the oldest first."""
        versions = ((v.moment, page, v.contents) for page, kept in self._pages.items() for v in kept)
        return iter(sorted(versions, key=lambda version: version[:2]))

    @property
    def known(self) -> list[int]:
        """The numbers of the pages that were noted."""
        return list(self._pages)

    def at(self, moment: int) -> Iterator[tuple[int, bytes]]:
        """Give the pages that held something at a moment, by their numbers."""
        for page, versions in self._pages.items():
            place = bisect_right(versions, moment, key=lambda version: version.moment)
            if place and (contents := versions[place - 1].contents) is not _ZEROS:
                yield page, contents

    def forget_before(self, moment: int) -> None:
        """Forget what only moments before this one need."""
        for versions in self._pages.values():
            place = bisect_right(versions, moment, key=lambda version: version.moment)
            if place > 1:
                del versions[: place - 1]
                self.size -= (place - 1) * PAGE_SIZE
