"""Files that appear whole or not at all, and are on the disk when that is said."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_MOST_LINKS: Final = 40
"""Symbolic links in one path, as in the kernel."""


class ForeignLinkError(OSError):
    """A path leads through another user's symbolic link in a directory to which everybody may write."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of the one at `path`, once it is whole and on the disk.

    OSError if that fails: the new file is gone then, and the old one is as it was. A process that is killed
    leaves the new file behind, under a name that begins with a dot.
    """
    # A link stays a link: the file that it leads to is replaced.
    path = resolved(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError("this is no file that could be replaced")
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    with open(draft, "xb", opener=for_owner_alone) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    with contextlib.suppress(OSError):
        sync_directory(path.parent)


def resolved(path: Path) -> Path:
    """Return the path without symbolic links.

    ForeignLinkError for a link in a sticky directory to which everybody may write, if the link belongs
    neither to us nor to the directory's owner: another user may have put it there to mislead us. The kernel
    has the same rule (fs.protected_symlinks), but not on every machine, and not for programs that read links
    themselves.
    """
    left = list(reversed(path.absolute().parts[1:]))
    found, links = Path("/"), 0
    while left:
        name = left.pop()
        if name == "..":
            found = found.parent
            continue
        step = found / name
        try:
            about = step.lstat()
        except FileNotFoundError:
            found = step
            continue
        if not stat.S_ISLNK(about.st_mode):
            found = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(f"{path}: too many symbolic links")
        around = found.stat()
        everybodys = around.st_mode & stat.S_ISVTX and around.st_mode & stat.S_IWOTH
        if everybodys and about.st_uid not in (os.geteuid(), around.st_uid):
            raise ForeignLinkError(
                f"{step} is a symbolic link of another user's, in a directory for everybody"
            )
        target = Path(os.readlink(step))
        if target.is_absolute():
            found = Path("/")
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return found


def for_owner_alone(path: str, flags: int) -> int:
    """Open a file as `open` asks its opener to; one that is created is for its owner alone."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk, as they are now."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
