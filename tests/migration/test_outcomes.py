"""What became of a move is decided once, whoever asks or commits first."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from chronovisor.migration.messages import Aborted, Acknowledged, Unknown
from chronovisor.migration.outcomes import KEPT_SECONDS, Outcomes, RecordedOutcomes, RememberedOutcomes
from chronovisor.timebase.record import MoveRecord

GIVEN = Acknowledged(MoveRecord((1 << 64) - 1, 2, 3, 4, -5, -6, 6, 7, -8, 9, 10, 11, -12, 13, 14, 15))


@pytest.fixture(params=["remembered", "recorded"])
def outcomes(request: pytest.FixtureRequest, tmp_path: Path) -> Outcomes:
    return RememberedOutcomes() if request.param == "remembered" else RecordedOutcomes(tmp_path / "moves")


def test_a_move_that_was_never_offered_is_unknown(outcomes: Outcomes) -> None:
    assert outcomes.ask("ab") == Unknown()
    outcomes.offered("cd")
    assert outcomes.ask("ab") == Unknown()


def test_commit_first(outcomes: Outcomes) -> None:
    outcomes.offered("ab")
    assert outcomes.settle("ab", GIVEN) == GIVEN
    assert outcomes.ask("ab") == GIVEN
    assert outcomes.settle("ab", Aborted("too late")) == GIVEN


def test_the_question_first(outcomes: Outcomes) -> None:
    outcomes.offered("ab")
    answer = outcomes.ask("ab")
    assert isinstance(answer, Aborted)
    assert outcomes.settle("ab", GIVEN) == answer
    assert outcomes.ask("ab") == answer


def test_a_move_is_offered_once(outcomes: Outcomes) -> None:
    """Whoever offers it again replays what he has heard."""
    outcomes.offered("ab")
    with pytest.raises(ValueError, match="offered before"):
        outcomes.offered("ab")
    outcomes.settle("ab", GIVEN)
    with pytest.raises(ValueError, match="offered before"):
        outcomes.offered("ab")
    assert outcomes.ask("ab") == GIVEN


def test_another_process_answers_for_one_that_is_gone(tmp_path: Path) -> None:
    RecordedOutcomes(tmp_path).offered("ab")
    RecordedOutcomes(tmp_path).offered("cd")
    RecordedOutcomes(tmp_path).settle("cd", GIVEN)
    assert isinstance(RecordedOutcomes(tmp_path).ask("ab"), Aborted)
    assert RecordedOutcomes(tmp_path).ask("cd") == GIVEN


def test_of_many_at_once_one_decides(tmp_path: Path) -> None:
    outcomes = RecordedOutcomes(tmp_path)
    for number in range(20):
        move, decided = f"{number:x}", []
        outcomes.offered(move)
        start = threading.Barrier(4)

        def decide(outcome: Acknowledged | Aborted) -> None:
            start.wait()  # noqa: B023
            decided.append(outcomes.settle(move, outcome))  # noqa: B023

        threads = [
            threading.Thread(target=decide, args=(o,)) for o in (GIVEN, Aborted("a"), GIVEN, Aborted("b"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(decided) == 4
        assert all(each == decided[0] for each in decided)
    assert {path.suffix for path in tmp_path.iterdir()} == {".offered", ".outcome"}


@pytest.mark.parametrize("move", ["../ab", "", "AB", "a/b", "a" * 65, "ab\n"])
def test_an_id_that_is_none_names_no_file(tmp_path: Path, move: str) -> None:
    outcomes = RecordedOutcomes(tmp_path / "moves")
    with pytest.raises(ValueError, match="no move's id"):
        outcomes.offered(move)
    assert outcomes.ask(move) == Unknown()


def test_what_is_told_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's contents before its name, and its name before the answer."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    outcomes = RecordedOutcomes(tmp_path / "moves")
    outcomes.offered("ab")
    assert synced == ["moves"]
    synced.clear()
    outcomes.settle("ab", GIVEN)
    draft, directory = synced
    assert draft.startswith("ab.")
    assert directory == "moves"
    assert (tmp_path / "moves" / "ab.outcome").exists()


def test_old_outcomes_are_removed_and_the_oldest_of_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for number in range(6):
        move = f"{number:x}"
        RecordedOutcomes(tmp_path).offered(move)
        RecordedOutcomes(tmp_path).settle(move, GIVEN)
        for path in tmp_path.glob(f"{move}.*"):
            os.utime(path, (now - number * 100, now - number * 100))
    for path in tmp_path.glob("0.*"):
        os.utime(path, (0, now - KEPT_SECONDS - 1))
    # One of a move's files alone says nothing about its age: without its outcome it would be aborted.
    os.utime(tmp_path / "1.outcome", (0, now - KEPT_SECONDS - 1))
    left = RecordedOutcomes(tmp_path)
    assert left.ask("0") == Unknown()
    assert [left.ask(f"{number:x}") for number in range(1, 6)] == [GIVEN] * 5
    monkeypatch.setattr("chronovisor.migration.outcomes.KEPT_MOVES", 4)
    left = RecordedOutcomes(tmp_path)
    assert [left.ask(f"{number:x}") for number in range(1, 5)] == [GIVEN] * 4
    assert left.ask("5") == Unknown()
    assert list(tmp_path.glob("5.*")) == []
