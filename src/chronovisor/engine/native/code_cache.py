"""Compiled code on disk: found by what it depends on, checked before use, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

_DIGEST_SIZE = 32


def directory() -> Path:
    """Where compiled code is kept: ``$CHRONOVISOR_CACHE``, else below the user's cache directory."""
    chosen = os.environ.get("CHRONOVISOR_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chronovisor"


def fetch(name: str, fingerprint: str, make: Callable[[], bytes]) -> bytes:
    """The bytes kept as ``name`` for ``fingerprint``, made and kept where there are none or they are damaged.

    A file is its content's SHA-256 and the content. It appears by a rename, so that processes which start
    at once never see half of one. Where nothing can be written the bytes are made each time.
    """
    path = directory() / f"{name}-{fingerprint}.o"
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
        digest, content = kept[:_DIGEST_SIZE], kept[_DIGEST_SIZE:]
        if hashlib.sha256(content).digest() == digest:
            return content
    content = make()
    with contextlib.suppress(OSError):
        _write(path, hashlib.sha256(content).digest() + content)
        _drop_older(path, name)
    return content


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _drop_older(newest: Path, name: str) -> None:
    """Keep the last few versions of a set: other checkouts may use them."""
    others = sorted(newest.parent.glob(f"{name}-*.o"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in others[8:]:
        path.unlink(missing_ok=True)
