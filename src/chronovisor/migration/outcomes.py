"""What became of moves, as their destination remembers it: each is decided once, and the first word stands.

COMMIT and a question may reach a destination at the same time, even two processes of it. Whichever settles
the move first decides it; the other is told.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from chronovisor.migration.messages import Aborted, Acknowledged, Message, Unknown
from chronovisor.timebase.record import MoveRecord

Outcome: TypeAlias = Acknowledged | Aborted

_MOVE: Final = re.compile(r"[0-9a-f]{1,64}")


class Outcomes(Protocol):
    """The moves that a destination was offered, and what became of them."""

    def offered(self, move: str) -> None:
        """Note that the move was accepted and may be settled. ValueError for what is no move's id."""

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before; return what it was decided to be."""

    def ask(self, move: str) -> Message:
        """What became of the move? One that was offered and not decided is aborted by the question.

        `Unknown` where it was never offered here.
        """


class RememberedOutcomes:
    """Outcomes that live as long as this object, for one thread."""

    def __init__(self) -> None:
        self._settled: dict[str, Outcome | None] = {}

    def offered(self, move: str) -> None:
        """Note that the move was accepted."""
        self._settled.setdefault(move, None)

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before."""
        decided = self._settled.get(move) or outcome
        self._settled[move] = decided
        return decided

    def ask(self, move: str) -> Message:
        """What became of the move?"""
        return self.settle(move, _asked()) if move in self._settled else Unknown()


class RecordedOutcomes:
    """Outcomes as files of a directory: they outlive the process, and all processes of it agree on them.

    A crash of the machine loses them, and the guest with them.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory

    def offered(self, move: str) -> None:
        """Note that the move was accepted."""
        self._path(move, "offered").touch(mode=0o600)

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before."""
        path = self._path(move, "outcome")
        # Known already needs no room on the disk.
        if (known := self._read(path)) is not None:
            return known
        # Whole or not there: a link to a finished file is made only where none is.
        draft = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            self._write(draft, outcome)
            os.link(draft, path)
        except FileExistsError:
            known = self._read(path)
            assert known is not None
            return known
        finally:
            draft.unlink(missing_ok=True)
        return outcome

    def ask(self, move: str) -> Message:
        """What became of the move?"""
        try:
            known = self._path(move, "offered").exists()
        except ValueError:
            return Unknown()
        return self.settle(move, _asked()) if known else Unknown()

    @staticmethod
    def _write(path: Path, outcome: Outcome) -> None:
        path.write_text(json.dumps(_as_json(outcome)))

    @staticmethod
    def _read(path: Path) -> Outcome | None:
        try:
            return _from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            return None

    def _path(self, move: str, kind: str) -> Path:
        # It comes from the other side and becomes a file's name.
        if not _MOVE.fullmatch(move):
            raise ValueError(f"{move!r} is no move's id")
        return self._directory / f"{move}.{kind}"


def _asked() -> Aborted:
    # Whoever asks takes this for the last word: a COMMIT that is still under way comes too late.
    return Aborted("COMMIT had not come when the source asked")


def _as_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Acknowledged):
        return {"acknowledged": asdict(outcome.record)}
    return {"aborted": outcome.reason}


def _from_json(value: dict[str, Any]) -> Outcome:
    if "acknowledged" in value:
        return Acknowledged(MoveRecord(**value["acknowledged"]))
    return Aborted(value["aborted"])
