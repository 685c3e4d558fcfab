"""Archives that Linux unpacks into its first file system, in the format `newc` of cpio.

This module writes the format itself, because only root can make the device files that cpio would archive.
Source: Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

_END: Final = "TRAILER!!!"
_ALIGNMENT: Final = 4


class Archive:
    """Writes entries into a file; `close` ends the archive. A file may hold several archives in a row."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._directories: set[str] = set()

    def directory(self, name: str) -> None:
        """Add a directory and the directories above it."""
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path and path not in self._directories:
                self._directories.add(path)
                self._entry(path, stat.S_IFDIR | 0o755)

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device's file."""
        self.directory(os.path.dirname(name))
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file."""
        self.directory(os.path.dirname(name))
        self._entry(name, stat.S_IFREG | mode, content)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def tree(self, root: Path, at: str = "") -> None:
        """Add everything below a directory."""
        for path in _below(root):
            name = os.path.join(at, path.relative_to(root))
            if path.is_symlink():
                self.link(name, os.readlink(path))
            elif path.is_dir():
                self.directory(name)
            else:
                self.file(name, path.read_bytes(), stat.S_IMODE(path.stat().st_mode))

    def close(self) -> None:
        """Write the end of the archive. The file stays open."""
        self._entry(_END, 0)

    def _entry(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._number += 1
        encoded = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, filesize, (dev, rdev: major, minor), namesize, check
        fields = (self._number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        self._padded(head + encoded)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._file.write(data + bytes(-len(data) % _ALIGNMENT))


def _below(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)
