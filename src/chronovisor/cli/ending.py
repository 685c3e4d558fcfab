"""Ending the process of a guest from another one."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from chronovisor.machine.control import process_id
from chronovisor.machine.errors import MachineError

_PATIENCE: Final = 10.0
"""Seconds that a process may take to end."""


@contextmanager
def process_of(name: str) -> Iterator[int]:
    """Open a descriptor of the process that answers for a name; MachineError if no process does."""
    try:
        process = os.pidfd_open(process_id(name))
    except ProcessLookupError:
        raise MachineError(f"{name} has just ended") from None
    try:
        yield process
    finally:
        os.close(process)


def wait_for_end(name: str, process: int, patience: float = _PATIENCE) -> None:
    """Wait until a process has ended; MachineError if it takes longer than `patience` seconds."""
    if not select.select([process], [], [], patience)[0]:
        raise MachineError(
            f"{name}: its process has not ended after {patience:g} s; `chronovisor kill {name}` ends it"
        )
