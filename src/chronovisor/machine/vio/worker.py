"""A device's own thread, which does one job after the other while the guest runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class Worker:
    """Does jobs in the order in which they come, each on its thread; without a thread, at once.

    Jobs raise nothing. Who gives jobs limits their number.
    """

    def __init__(self, name: str, threaded: bool) -> None:
        self._name = name
        self._threaded = threaded
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self.unfinished = 0
        """How many jobs were given and are not done."""

    def give(self, job: Job) -> None:
        """Have a job done."""
        if not self._threaded:
            job()
            return
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.append(job)
            self.unfinished += 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until all jobs are done. Nobody gives any meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self.unfinished == 0)

    def close(self) -> None:
        """Do what was given, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()
            with self._changed:
                self.unfinished -= 1
                self._changed.notify_all()
