"""What became of moves, as their destination remembers it: each is decided once, and for good.

COMMIT and a query may reach a destination at the same time, even two processes of it. Whichever settles the
move first decides it; the other is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from chronovisor.migration.messages import Aborted, Acknowledged, Message, Unknown
from chronovisor.migration.whole_file import for_owner_alone, sync_directory
from chronovisor.timebase.record import MoveRecord

Outcome: TypeAlias = Acknowledged | Aborted

KEPT_SECONDS: Final = 30 * 86400.0
"""A source that asks later than that is told `Unknown`, and its guest stays paused."""
KEPT_MOVES: Final = 10_000

_REPLAYED: Final = "move {} was offered before"
_MOVE: Final = re.compile(r"[0-9a-f]{1,64}")


class Outcomes(Protocol):
    """The moves that a destination was offered, and what became of them."""

    def offered(self, move: str) -> None:
        """Note that the move is accepted and may be settled.

        ValueError for what is no move's id, and for a move that was offered before: someone replays it.
        """

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before; return what it was decided to be."""

    def ask(self, move: str) -> Message:
        """Return what became of the move. A query aborts a move that was offered and not decided.

        `Unknown` if it was never offered here.
        """


class RememberedOutcomes:
    """Outcomes that live as long as this object, for one thread."""

    def __init__(self) -> None:
        self._settled: dict[str, Outcome | None] = {}

    def offered(self, move: str) -> None:
        """Note that the move is accepted."""
        if move in self._settled:
            raise ValueError(_REPLAYED.format(move))
        self._settled[move] = None

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before."""
        decided = self._settled.get(move) or outcome
        self._settled[move] = decided
        return decided

    def ask(self, move: str) -> Message:
        """Return what became of the move."""
        return self.settle(move, _asked()) if move in self._settled else Unknown()


class RecordedOutcomes:
    """Outcomes as files of a directory: they outlive the process, and all processes of it agree on them.

    A file is on the disk, and its name too, when the method that wrote it returns, so that a crash of the
    machine does not take back what the other side was told. Moves that are older than `KEPT_SECONDS` are
    forgotten when a directory is opened, and the oldest ones if there are more than `KEPT_MOVES`.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._prune()

    def offered(self, move: str) -> None:
        """Note that the move is accepted."""
        path = self._path(move, "offered")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise ValueError(_REPLAYED.format(move)) from None
        sync_directory(self._directory)

    def settle(self, move: str, outcome: Outcome) -> Outcome:
        """Decide the move, unless it was decided before."""
        path = self._path(move, "outcome")
        # Looked for first: on a full disk a move that is decided can still be asked about.
        if (known := self._read(path)) is not None:
            return known
        # The outcome's file is whole or absent: a link to a finished file, made only if there is none.
        draft = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            self._write(draft, outcome)
            os.link(draft, path)
            sync_directory(self._directory)
        except FileExistsError:
            known = self._read(path)
            assert known is not None
            return known
        finally:
            draft.unlink(missing_ok=True)
        return outcome

    def ask(self, move: str) -> Message:
        """Return what became of the move."""
        try:
            known = self._path(move, "offered").exists()
        except ValueError:
            return Unknown()
        return self.settle(move, _asked()) if known else Unknown()

    def _prune(self) -> None:
        changed: dict[str, float] = {}
        for path in self._directory.iterdir():
            move = path.name.partition(".")[0]
            with contextlib.suppress(FileNotFoundError):
                changed[move] = max(changed.get(move, 0.0), path.lstat().st_mtime)
        oldest = time.time() - KEPT_SECONDS
        for place, move in enumerate(sorted(changed, key=changed.__getitem__, reverse=True)):
            if place < KEPT_MOVES and changed[move] >= oldest:
                continue
            # The offer goes first: an offer without its outcome would be aborted by a query, and its guest
            # may run.
            (self._directory / f"{move}.offered").unlink(missing_ok=True)
            for path in self._directory.glob(f"{move}.*"):
                path.unlink(missing_ok=True)

    @staticmethod
    def _write(path: Path, outcome: Outcome) -> None:
        with open(path, "w", opener=for_owner_alone) as file:
            file.write(json.dumps(_as_json(outcome)))
            file.flush()
            os.fsync(file.fileno())

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
    # The source takes this answer as final: a COMMIT that is still under way comes too late.
    return Aborted("COMMIT had not come when the source asked")


def _as_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Acknowledged):
        return {"acknowledged": asdict(outcome.record)}
    return {"aborted": outcome.reason}


def _from_json(value: dict[str, Any]) -> Outcome:
    if "acknowledged" in value:
        return Acknowledged(MoveRecord(**value["acknowledged"]))
    return Aborted(value["aborted"])
