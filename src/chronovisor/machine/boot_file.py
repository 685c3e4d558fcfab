"""A file that a guest begins with: its kernel or its initial RAM disk, read again for each reboot."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from chronovisor.machine.errors import ImageError
from chronovisor.machine.files import FileError, open_regular, read_whole


class BootFile:
    """A file whose contents are not kept in memory between a guest's beginnings.

    It stays open: if another file takes its name (an upgrade, say), a guest that reboots still begins with
    the file that it began with. ImageError, which names the file, if it cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        try:
            with open_regular(path) as file:
                self._descriptor = os.dup(file.fileno())
        except FileError as error:
            raise ImageError(f"{self.name}: {error}") from None
        weakref.finalize(self, os.close, self._descriptor)
        self._version = self._version_now()

    def read(self) -> bytes:
        """The file's contents; ImageError if they changed since it was opened, or cannot be read."""
        try:
            with os.fdopen(self._descriptor, "rb", closefd=False) as file:
                contents = read_whole(file)
        except FileError as error:
            raise ImageError(f"{self.name}: {error}") from None
        if self._version_now() != self._version:
            raise ImageError(f"{self.name}: the file has changed since the guest began")
        return contents

    def _version_now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns
