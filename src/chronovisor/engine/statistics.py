"""What is counted while guests run: instructions by what executed them, and this process's native code."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

_counting = threading.Lock()


class Instructions(NamedTuple):
    """Instructions that a guest's threads have executed, by what executed them."""

    concrete: int
    """The concrete evaluator."""
    threaded: int
    """Handlers, each of one instruction or of a pair."""
    regions: int


@dataclass
class NativeCode:
    """The native code of one kind that this process has had compiled or has found on disk, for all guests."""

    compiled: int = 0
    """How many sets of handlers, or regions, were compiled for this process."""
    compile_seconds: float = 0.0
    """How long that took: the seconds from a request to its answer, by the real clock."""
    kept: int = 0
    """How many were found on disk."""
    size: int = 0
    """The bytes of all their object files."""
    link_seconds: float = 0.0
    """How long it took to link them into this process."""

    def add_compiled(self, count: int) -> None:
        """Count what was compiled. From any thread, as all the others."""
        with _counting:
            self.compiled += count

    def add_compiling(self, seconds: float) -> None:
        """Count the time of a request, whatever its answer was."""
        with _counting:
            self.compile_seconds += seconds

    def add_kept(self, count: int) -> None:
        """Count what was found on disk."""
        with _counting:
            self.kept += count

    def add_linked(self, size: int, seconds: float) -> None:
        """Count an object file that was linked."""
        with _counting:
            self.size += size
            self.link_seconds += seconds


HANDLERS = NativeCode()
"""Sets of handlers, and the functions beside them, which are one set."""
REGIONS = NativeCode()
"""Hot loops that were compiled whole."""
