"""The move by which a guest comes to `receive`, as its monitor's clients are told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from chronovisor.migration.move_status import ACTIVE, COMPLETED, FAILED
from chronovisor.migration.tracing import MoveTrace


class IncomingMove:
    """A trace of moves that passes everything on to `trace`, and tells `changed` of their status.

    The statuses are QEMU's. That the guest runs is known only to who lets it run, and calls `complete`.
    """

    def __init__(self, trace: MoveTrace) -> None:
        self._trace = trace
        self.status: str | None = None
        """None before a source has come."""
        self.changed: Callable[[str], None] = lambda status: None
        """Told of each new status, on any thread."""

    def begins(self, where: str) -> None:
        """Note that a source has come."""
        self._trace.begins(where)
        self._set(ACTIVE)

    def phase(self, phase: Enum) -> None:
        """Pass it on."""
        self._trace.phase(phase)

    def round(self, number: int) -> None:
        """Pass it on."""
        self._trace.round(number)

    def ends(self, outcome: str, report: Mapping[str, int | None]) -> None:
        """Note a move that brought no guest."""
        self._trace.ends(outcome, report)
        if outcome != COMPLETED:
            self._set(FAILED)

    def complete(self) -> None:
        """Note that the guest is here, and runs if it is to."""
        self._set(COMPLETED)

    def _set(self, status: str) -> None:
        self.status = status
        self.changed(status)
