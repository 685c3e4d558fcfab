"""A file of bounded size that holds the newest of what is written to it."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

from chronovisor.machine.errors import MachineError


class BoundedLog:
    """A log at `path`, begun anew. It holds at most `size` bytes: the newer half is at `path`, the older half
    at `path`.1. What is no regular file (a terminal, a pipe) just gets everything.

    MachineError if it cannot be opened. If it cannot be written later (a full disk), output is lost and the
    guest goes on.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._half = max(1, size // 2)
        self._lock = threading.Lock()
        self._written = 0
        self._stderr = False
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise MachineError(f"{path}: {error.strerror or error}") from None
        self._is_regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, data: bytes) -> None:
        """Append `data`. From any thread."""
        with self._lock, contextlib.suppress(OSError):
            rest = memoryview(data)
            while rest:
                if self._is_regular and self._written >= self._half:
                    self._begin_file()
                piece = rest[: self._half - self._written] if self._is_regular else rest
                done = os.write(self._descriptor, piece)
                self._written += done
                rest = rest[done:]

    def take_stderr(self) -> None:
        """Have what other code writes to the standard error's descriptor come here, from now on."""
        with self._lock:
            self._stderr = True
            os.dup2(self._descriptor, 2)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _begin_file(self) -> None:
        os.replace(self.path, self.path.with_name(f"{self.path.name}.1"))
        new = self._open()
        os.dup2(new, self._descriptor, inheritable=False)
        os.close(new)
        if self._stderr:
            os.dup2(self._descriptor, 2)
        self._written = 0

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC | os.O_CLOEXEC, 0o600)
