"""What a side of a move tells while somebody traces it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Protocol


class MoveTrace(Protocol):
    """Told how moves go, one at a time. Methods must not raise."""

    def begins(self, where: str) -> None:
        """A move begins: `where` says to or from where, for people."""

    def phase(self, phase: Enum) -> None:
        """A phase of it begins, of `migration.phases`; so the phase before has ended."""

    def round(self, number: int) -> None:
        """A round of copying memory is under way, the first one is 1."""

    def ends(self, outcome: str, report: Mapping[str, int | None]) -> None:
        """The move has ended; `report` has what is known of it, by the names of `MoveReport.as_json`."""


class _Untraced:
    """The trace of moves that nobody traces."""

    def begins(self, where: str) -> None:
        """Do nothing."""

    def phase(self, phase: Enum) -> None:
        """Do nothing."""

    def round(self, number: int) -> None:
        """Do nothing."""

    def ends(self, outcome: str, report: Mapping[str, int | None]) -> None:
        """Do nothing."""


UNTRACED: Final = _Untraced()
"""Told nothing: the trace of moves that nobody traces."""
