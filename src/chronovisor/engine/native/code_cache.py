"""Compiled code on disk: found by what it depends on, checked before use, written whole or not at all.

The package brings code that every guest needs, the user's own cache has the rest.

A user who can write these files decides what this process executes. A directory or file that belongs to
another user, or that others can write to, is therefore not used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

_log = logging.getLogger(__name__)
#: The code that the package brings, in files as the cache has them.
BROUGHT = Path(__file__).parent / "code"
_DIGEST_SIZE = 32
#: Bytes of all files together.
MOST = 256 << 20
#: The end of a file's name while it is being written, and the most seconds that this takes.
_UNFINISHED, _WRITING = ".part", 60.0
#: The cache's files: a name, a fingerprint, and while the file is being written some letters more.
_OURS = re.compile(rf"[\w-]+-[0-9a-f]{{32}}\.o(\w+{re.escape(_UNFINISHED)})?")
#: What is kept, by how the files' names begin.
_KINDS = {
    "everyday-": "everyday handlers",
    "pairs-": "pairs of instructions",
    "i_": "single handlers",
    "several-": "several handlers",
    "regions-": "regions, by page",
}
#: A process looks for files that are too many each time it has written this part of MOST.
_LOOKS = 64


def directory() -> Path:
    """Where compiled code is kept: ``$CHRONOVISOR_CACHE``, else below the user's cache directory."""
    chosen = os.environ.get("CHRONOVISOR_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chronovisor"


def _distrusted(found: os.stat_result) -> str | None:
    """Why code in a file or directory is not executed; None if it may be."""
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others can write to it"
    return None


@cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _usable(place: Path) -> bool:
    """Whether the directory is ours alone; it is made if it does not exist."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Its own mode and owner count, and those of the directory that a symbolic link leads to.
        why = _distrusted(place.stat())
    except OSError as error:
        why = error.strerror or str(error)
    if why is not None:
        _warn_once(
            f"compiled code is not kept in {place}: {why}. Each start compiles it again; "
            "set CHRONOVISOR_CACHE to a directory of your own"
        )
    return why is None


def _file_name(name: str, fingerprint: str) -> str:
    return f"{name}-{fingerprint}.o"


def kept(name: str, fingerprint: str) -> bytes | None:
    """The bytes that the package or the user's cache has as ``name`` for ``fingerprint``; None if neither has
    any that can be trusted.

    A file is its content's SHA-256 and the content. What the package brings is trusted as its modules are.
    """
    file_name = _file_name(name, fingerprint)
    with contextlib.suppress(OSError):
        if (brought := _content((BROUGHT / file_name).read_bytes())) is not None:
            return brought
    path = directory() / file_name
    if not _usable(path.parent):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        why = _distrusted(found) if stat.S_ISREG(found.st_mode) else "it is no plain file"
        if why is not None:
            _warn_once(f"the compiled code in {path} is not used: {why}")
            return None
        whole = file.read()
        # Files that are not used for long go first.
        with contextlib.suppress(OSError):
            os.utime(handle)
    return _content(whole)


def _content(whole: bytes) -> bytes | None:
    """What a file has behind its digest; None if the two do not fit."""
    digest, content = whole[:_DIGEST_SIZE], whole[_DIGEST_SIZE:]
    return content if hashlib.sha256(content).digest() == digest else None


def kept_names(fingerprint: str) -> frozenset[str]:
    """The names of what is kept for ``fingerprint``."""
    place, end = directory(), f"-{fingerprint}.o"
    if not _usable(place):
        return frozenset()
    try:
        found = os.listdir(place)
    except OSError:
        return frozenset()
    return frozenset(name.removesuffix(end) for name in found if name.endswith(end))


def keep(name: str, fingerprint: str, content: bytes) -> None:
    """Keep the bytes as ``name`` for ``fingerprint``; warn once if the directory cannot be written to.

    The file appears by a rename: processes that start at the same time never see half of one.
    """
    path = directory() / _file_name(name, fingerprint)
    if not _usable(path.parent):
        return
    try:
        _write(path, hashlib.sha256(content).digest() + content)
        _written.add(path.parent, len(content))
    except OSError as error:
        _warn_once(
            f"compiled code cannot be kept in {path.parent}: {error.strerror or error}. "
            "Each start compiles it again"
        )


def fetch(name: str, fingerprint: str, make: Callable[[], bytes]) -> bytes:
    """The bytes kept as ``name`` for ``fingerprint``, made and kept now if they cannot be used."""
    content = kept(name, fingerprint)
    if content is None:
        content = make()
        keep(name, fingerprint, content)
    return content


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class _Written:
    """What this process has written since it last looked for files that are too many.

    A directory may have tens of thousands of files: it is not listed after each one.
    """

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, place: Path, size: int) -> None:
        """Count a file that was written to ``place``."""
        self._bytes += size
        if self._bytes > MOST // _LOOKS:
            self._bytes = 0
            _drop_oldest(place)


_written = _Written()


def _drop_oldest(place: Path) -> None:
    """Delete what was not used for longest, if there is more than MOST."""
    size = 0
    for path, status in sorted(_files(place), key=lambda file: file[1].st_mtime, reverse=True):
        size += status.st_size
        if size > MOST:
            path.unlink(missing_ok=True)


def _files(place: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The cache's files in a directory, which may hold other files."""
    for entry in os.scandir(place):
        # Another process may delete the file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if _OURS.fullmatch(entry.name):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def contents() -> dict[str, tuple[int, int]]:
    """How many files of each kind there are, and their bytes; OSError if the directory cannot be read."""
    found: dict[str, tuple[int, int]] = {}
    with contextlib.suppress(FileNotFoundError):
        for path, status in _files(directory()):
            kind = _kind(path.name)
            files, size = found.get(kind, (0, 0))
            found[kind] = files + 1, size + status.st_size
    return found


def _kind(name: str) -> str:
    if name.endswith(_UNFINISHED):
        return "unfinished"
    return next((kind for prefix, kind in _KINDS.items() if name.startswith(prefix)), "functions beside them")


def clear() -> tuple[int, int]:
    """Delete the cache's files; how many these were, and their bytes. Guests that run keep what they have.

    PermissionError if the directory belongs to another user or others can write to it: its files may be
    somebody else's. OSError if it cannot be read, or a file cannot be deleted.
    """
    place, deleted, freed = directory(), 0, 0
    with contextlib.suppress(FileNotFoundError):
        if (why := _distrusted(place.stat())) is not None:
            raise PermissionError(errno.EPERM, f"{why}, so the files may be somebody else's", str(place))
        for path, status in _files(place):
            # A process may be writing it. One that has died left it for longer.
            if path.name.endswith(_UNFINISHED) and time.time() - status.st_mtime < _WRITING:
                continue
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                deleted, freed = deleted + 1, freed + status.st_size
    return deleted, freed
