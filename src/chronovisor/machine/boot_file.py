"""What a guest begins with, its kernel and initial RAM disk: files, read again for each reboot, or bytes."""

from __future__ import annotations

import io
import os
import weakref
from pathlib import Path
from typing import BinaryIO, Protocol

from chronovisor.machine.errors import ImageError
from chronovisor.machine.files import FileError, open_regular


class Contents(Protocol):
    """Contents that are read where they are wanted: nobody needs a copy of a whole kernel."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def open(self) -> BinaryIO:
        """Return a stream of them, at the first byte."""

    def read_into(self, place: memoryview, offset: int = 0) -> None:
        """Fill `place` with the bytes from `offset` on; ImageError if they cannot be read."""


class GivenBytes:
    """Contents that somebody has given."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def open(self) -> BinaryIO:
        """Return a stream of them, at the first byte."""
        return io.BytesIO(self._data)

    def read_into(self, place: memoryview, offset: int = 0) -> None:
        """Fill `place` with the bytes from `offset` on."""
        place[:] = self._data[offset : offset + len(place)]


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

    @property
    def size(self) -> int:
        """How many bytes it had when it was opened."""
        return self._version[0]

    def open(self) -> BinaryIO:
        """Return a stream of its contents, at the first byte; ImageError as `check`."""
        self.check()
        stream = os.fdopen(self._descriptor, "rb", closefd=False)
        stream.seek(0)
        return stream

    def read_into(self, place: memoryview, offset: int = 0) -> None:
        """Fill `place` with the bytes from `offset` on; ImageError as `check`, or if they cannot be read."""
        done = 0
        try:
            while done < len(place) and (count := os.preadv(self._descriptor, [place[done:]], offset + done)):
                done += count
        except OSError as error:
            raise ImageError(f"{self.name}: {error.strerror or error}") from None
        self.check()

    def check(self) -> None:
        """ImageError if the file has changed since it was opened."""
        if self._version_now() != self._version:
            raise ImageError(f"{self.name}: the file has changed since the guest began")

    def _version_now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns
