"""What is kept of guests that run in the background: the log of the console, and how the guest ended.

Each has a directory `guests/NAME` among what outlives a crash (`state_directory`). The next guest of that
name begins it anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import check_name, only_these_names, state_directory

_KEPT: Final = 64
"""Records of guests that run no more. Of more than these, the oldest are deleted."""


class GuestRecord:
    """The record of the guest `name`, which may not be there."""

    def __init__(self, name: str) -> None:
        self._directory = _records() / check_name(name)
        self._end = self._directory / "end.json"

    @property
    def log(self) -> Path:
        """Where the newer half of its console's log is."""
        return self._directory / "console.log"

    @property
    def exists(self) -> bool:
        """Whether a guest of that name was in the background and is not forgotten."""
        return self._directory.is_dir()

    def begin(self) -> None:
        """Begin it anew, and forget the oldest ones; MachineError if it cannot be written."""
        try:
            self.forget()
            self._directory.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise MachineError(f"{self._directory}: {error.strerror or error}") from None
        _forget_the_oldest()

    def forget(self) -> None:
        """Delete it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def keep_end(self, end: dict[str, Any]) -> None:
        """Keep how the guest ended, as JSON says it."""
        try:
            self._end.write_text(json.dumps(end))
        except OSError as error:
            raise MachineError(f"{self._end}: {error.strerror or error}") from None

    @property
    def end(self) -> dict[str, Any] | None:
        """How the guest ended; None if that was not written: its process was killed, or it runs."""
        try:
            found: dict[str, Any] = json.loads(self._end.read_text())
        except (OSError, ValueError):
            return None
        return found


def _records() -> Path:
    return state_directory() / "guests"


def _forget_the_oldest() -> None:
    # A guest has its name before it begins or deletes the record of that name.
    with only_these_names() as running:
        over = [path for path in _records().iterdir() if path.name not in running]
        over.sort(key=lambda path: path.stat().st_mtime)
        for path in over[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)
