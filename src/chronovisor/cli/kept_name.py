"""Keeping a guest's name over a move on one machine: the source has the name until its process lets it go."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from chronovisor.cli.output import say
from chronovisor.machine.control import ControlServer
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest

_PATIENCE: Final = 30.0
"""Seconds in which the source's process is expected to let the name go, on a busy machine too."""
_BETWEEN_TRIES: Final = 0.02


@contextlib.contextmanager
def keeping_name(guest: Guest, wished: str, server: ControlServer) -> Iterator[None]:
    """Give the guest the name that it had at its source, as soon as that is free.

    `server` answers for the name that it has meanwhile, and continues to. If the name does not become free,
    the user is told the other one.
    """
    over = threading.Event()

    def take() -> None:
        deadline = time.monotonic() + _PATIENCE
        while not over.wait(_BETWEEN_TRIES):
            try:
                with ControlServer(wished, server.handlers):
                    guest.name = wished
                    over.wait()
                return
            except MachineError:
                if time.monotonic() > deadline:
                    say(f"the guest is called {guest.name} here: it cannot be called {wished}")
                    return

    thread = threading.Thread(target=take, name="name", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
