"""How far a guest's latest move from here is, in the words of QEMU's `MigrationStatus`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from chronovisor.migration.errors import MoveCancelledError, MoveUndecidedError
from chronovisor.migration.phases import DestinationPhase, SourcePhase
from chronovisor.migration.transfer import MoveReport

SETUP: Final = "setup"
ACTIVE: Final = "active"
DEVICE: Final = "device"
"""The guest is stopped, and the rest of it is sent."""
CANCELLING: Final = "cancelling"
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
UNDECIDED: Final = "x-undecided"
"""Ours: QEMU has no moves whose outcome is unknown."""
_STATUSES: Final = {SourcePhase.COPY: ACTIVE, SourcePhase.SEND_STATE: DEVICE}


class MoveStatus:
    """Follows moves. `probe` is for their source, and `changed` is told of each new status, on any thread."""

    def __init__(self) -> None:
        self.status: str | None = None
        """None before the first move."""
        self.error = ""
        """Why a move did not succeed."""
        self.report: MoveReport | None = None
        """Of a completed move."""
        self.changed: Callable[[str], None] = lambda status: None
        self._begun = self._over = 0.0
        self._number = 0
        self._changing = threading.Lock()

    @property
    def under_way(self) -> bool:
        """Whether a move is being made."""
        return self.status in (SETUP, ACTIVE, DEVICE, CANCELLING)

    @property
    def duration(self) -> float:
        """Seconds that the move has taken, or took."""
        return (time.monotonic() if self.under_way else self._over) - self._begun

    def begin(self) -> int | None:
        """Say that a move is to be made; return the move's number, or None if another one is under way."""
        with self._changing:
            if self.under_way:
                return None
            self._number += 1
            self.error, self.report, self._begun = "", None, time.monotonic()
            self.status = SETUP
            number = self._number
        self.changed(SETUP)
        return number

    def probe(self, phase: SourcePhase | DestinationPhase) -> None:
        """Note a phase of the source that begins."""
        if not isinstance(phase, SourcePhase) or phase not in _STATUSES:
            return
        with self._changing:
            if self.status == CANCELLING:
                return
            self.status = _STATUSES[phase]
        self.changed(_STATUSES[phase])

    def follow(self, move: Callable[[], MoveReport]) -> MoveReport:
        """Make the move that has begun, or ask again what became of it, and note how that ends."""
        try:
            self.report = move()
        except BaseException as error:
            self.error = str(error)
            undecided = isinstance(error, MoveUndecidedError)
            cancelled = isinstance(error, MoveCancelledError)
            self._finish(UNDECIDED if undecided else CANCELLED if cancelled else FAILED)
            raise
        self._finish(COMPLETED)
        return self.report

    def fail(self, number: int, why: str) -> None:
        """Note that the move of this number did not even begin; nothing if it is known how it ended."""
        if self.under_way and number == self._number:
            self.error = why
            self._finish(FAILED)

    def cancel(self) -> None:
        """Note that the move under way is cancelled, before anything is done for that; nothing if it has
        ended by itself.
        """
        with self._changing:
            if not self.under_way or self.status == CANCELLING:
                return
            self.status = CANCELLING
        self.changed(CANCELLING)

    def take_back(self, move: str) -> None:
        """Note that the guest of an undecided move goes on here, as its operator says."""
        self.error = f"move {move} was undecided, and its operator let the guest go on here"
        self._finish(FAILED)

    def _finish(self, status: str) -> None:
        with self._changing:
            self._over = time.monotonic()
            self.status = status
        self.changed(status)
