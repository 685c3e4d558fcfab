"""What became of the latest core file of a guest, as QMP tells of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class DumpStatus:
    """The latest dump of a guest.

    `stopped` is told that the guest is stopped for one (True), and that it goes on; `completed` of each that
    has ended, with why it failed, if it did.
    """

    def __init__(self) -> None:
        self.stopped: Callable[[bool], None] = lambda stopped: None
        self.completed: Callable[[str | None], None] = lambda error: None
        self._status, self._total, self._completed = "none", 0, 0

    def as_json(self) -> dict[str, Any]:
        """Return it as `query-dump` does, in bytes of memory."""
        return {"status": self._status, "completed": self._completed, "total": self._total}

    @contextmanager
    def writing(self, size: int, running: bool) -> Iterator[None]:
        """Have the block write a dump of so many bytes of memory; the guest was `running`, and is stopped."""
        self._status, self._total, self._completed = "active", size, 0
        if running:
            self.stopped(True)
        try:
            yield
            self._status, self._completed = "completed", size
            self.completed(None)
        except BaseException as error:
            self._status = "failed"
            self.completed(str(error))
            raise
        finally:
            if running:
                self.stopped(False)
