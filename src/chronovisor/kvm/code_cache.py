"""The files in which a provider keeps the native code that it made, as far as user space may ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CodeCache:
    """Where native code is kept, and what can be done about it."""

    directory: Path
    limit: int
    """About how many bytes are kept: what was not used for longest is deleted."""
    contents: Callable[[], Mapping[str, tuple[int, int]]]
    """How many files of each kind there are, and their bytes; OSError if the directory cannot be read."""
    clear: Callable[[], tuple[int, int]]
    """Delete the files; how many these were, and their bytes. Guests that run are not disturbed.

    PermissionError for a directory that is not the user's own, OSError for a file that cannot be deleted.
    """
