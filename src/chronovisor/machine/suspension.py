"""A guest that is asked to suspend itself for a move (LoPAR, "Partition Migration and Hibernation").

An agent in the guest tells its kernel the number of the move's stream; Linux takes it at
/sys/kernel/mobility/migration. The kernel asks for the stream's state (H_VASI_STATE) until that says
SUSPENDING. Then all its processors make H_JOIN but the last, which calls `ibm,suspend-me`. The guest moves
inside that call, and wakes the others with H_PROD afterwards.
"""

from __future__ import annotations

import threading
from enum import IntEnum


class VasiState(IntEnum):
    """What H_VASI_STATE says of a stream."""

    ENABLED = 1
    ABORTED = 2
    SUSPENDING = 3


class Suspension:
    """The request that a guest suspend itself for the move of the stream `stream` (64 bits)."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.state = VasiState.ENABLED
        self._deciding = threading.Lock()
        self._suspended = threading.Event()

    def begin(self) -> None:
        """Have the guest suspend itself as soon as it asks for the state."""
        self.state = VasiState.SUSPENDING

    def suspend(self) -> bool:
        """Note that the guest suspended itself; False if the request is over, or has not begun."""
        with self._deciding:
            if self.state is not VasiState.SUSPENDING:
                return False
            self._suspended.set()
            return True

    def wait(self, seconds: float) -> bool:
        """Wait until the guest has suspended itself; whether it has."""
        return self._suspended.wait(seconds)

    def end(self) -> bool:
        """End the request, and return whether the guest suspended itself in time."""
        with self._deciding:
            self.state = VasiState.ABORTED
            return self._suspended.is_set()
