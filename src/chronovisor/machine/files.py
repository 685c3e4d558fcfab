"""Opening the files that a user names: images, code, logs, snapshots.

A name can be anything: a directory, a pipe to which nobody writes, a device without an end. Only a regular
file is opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

SHIPPED: Final = Path(__file__).parent / "images"
"""The images that come with Chronovisor."""
LARGEST: Final = 4 << 30
"""Bytes of the largest file that is read whole: a kernel with all its debugging information is smaller."""


class FileError(Exception):
    """A file that cannot be read. The text is the reason alone; it does not name the file."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file; FileError if it is anything else, or cannot be read."""
    return os.fdopen(open_descriptor(path, os.O_RDONLY), "rb")


def open_descriptor(path: str | Path, mode: int) -> int:
    """Open a regular file, with os.O_RDWR also to write to it; FileError as `open_regular`."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a process that writes to it.
        descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(error.strerror or str(error)) from None
    except ValueError as error:
        raise FileError(str(error)) from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise FileError(
            "this is a directory, not a regular file" if stat.S_ISDIR(kind) else "this is not a regular file"
        )
    return descriptor


def read_regular(path: str | Path, limit: int = LARGEST) -> bytes:
    """Read a regular file of at most `limit` bytes whole; FileError if it is larger or cannot be read."""
    with open_regular(path) as file:
        return read_whole(file, limit)


def read_whole(file: BinaryIO, limit: int = LARGEST) -> bytes:
    """Read an open regular file of at most `limit` bytes from its beginning; FileError as `read_regular`."""
    try:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise FileError(f"the file has {size} bytes; the most that can be read is {limit}")
        file.seek(0)
        return file.read()
    except OSError as error:
        raise FileError(error.strerror or str(error)) from None


def find_image(name: str | Path) -> Path:
    """Return the path of an image: the file of that name, or else the shipped guest of that name.

    A shipped guest is named with or without `.elf`. The name of no file comes back as it is.
    """
    path = Path(name)
    if path.name == str(name) and not path.exists():
        for shipped in (SHIPPED / path, SHIPPED / f"{path}.elf"):
            if shipped.is_file():
                return shipped
    return path
