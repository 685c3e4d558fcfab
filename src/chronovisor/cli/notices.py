"""What the engine logs, told to the user on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from chronovisor.cli.output import printable

_SOURCE = "chronovisor.engine"


class _Telling(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"chronovisor: {printable(record.getMessage())}", file=sys.stderr, flush=True)


@contextmanager
def engine_notices() -> Iterator[None]:
    """Print what the engine logs: its warnings, and on a terminal also what it is busy with."""
    logger = logging.getLogger(_SOURCE)
    before = logger.level
    terminal = sys.stderr is not None and sys.stderr.isatty()
    handler = _Telling()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if terminal else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
