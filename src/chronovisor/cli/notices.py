"""What the layers below log, told to the user while a guest runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SOURCE = "chronovisor.engine"


class _Telling(logging.Handler):
    def __init__(self, say: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def engine_notices(say: Callable[[str], None]) -> Iterator[None]:
    """Pass on what the engine logs: its warnings, and on a terminal what it is busy with, too."""
    logger = logging.getLogger(_SOURCE)
    before = logger.level
    level = logging.INFO if sys.stderr.isatty() else logging.WARNING
    handler = _Telling(say, level)
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
