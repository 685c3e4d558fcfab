"""How a move ends, in QEMU's words."""

from __future__ import annotations

from typing import NoReturn

import pytest

from chronovisor.machine.errors import MachineError
from chronovisor.migration.errors import MoveCancelledError, MoveError, MoveUndecidedError
from chronovisor.migration.move_status import MoveStatus
from chronovisor.migration.phases import DestinationPhase, SourcePhase
from chronovisor.migration.transfer import MoveReport


def refuse() -> MoveReport:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MoveError("it broke"), "failed"),
        (MachineError("it broke"), "failed"),
        (MoveCancelledError("it broke"), "cancelled"),
        (MoveUndecidedError("a1", "it broke", refuse), "x-undecided"),
    ],
)
def test_how_it_ends(error: Exception, status: str) -> None:
    told: list[str] = []
    moves = MoveStatus()
    moves.changed = told.append

    def move() -> MoveReport:
        assert moves.under_way
        for phase in (*SourcePhase, *DestinationPhase):
            moves.probe(phase)
        raise error

    number = moves.begin()
    assert number is not None
    with pytest.raises(type(error)):
        moves.follow(move)
    assert told == ["setup", "active", "device", status]
    assert moves.error == str(error)
    assert not moves.under_way
    assert moves.duration == moves.duration >= 0
    moves.fail(number, "too late to matter")
    assert moves.status == status


def test_an_undecided_move_that_its_operator_takes_back_has_failed() -> None:
    moves = MoveStatus()
    moves.begin()
    moves.take_back("a1")
    assert (moves.status, "a1" in moves.error) == ("failed", True)


def test_a_move_that_did_not_begin_has_failed_and_no_other_has() -> None:
    moves = MoveStatus()
    assert moves.status is None
    first = moves.begin()
    assert first is not None
    moves.fail(first, "why")
    assert (moves.status, moves.error) == ("failed", "why")
    moves.begin()
    moves.fail(first, "told late")
    assert (moves.status, moves.error) == ("setup", "")


def test_a_move_beside_one_that_is_under_way_does_not_begin() -> None:
    moves, told = MoveStatus(), list[str]()
    moves.changed = told.append
    moves.begin()
    assert moves.begin() is None
    moves.probe(SourcePhase.COPY)
    assert moves.begin() is None
    assert told == ["setup", "active"]


def test_a_move_that_is_cancelled() -> None:
    """It is cancelled until it has ended, whatever phase begins meanwhile; one that has ended is not."""
    told: list[str] = []
    moves = MoveStatus()
    moves.changed = told.append
    moves.cancel()
    assert moves.begin() is not None

    def move() -> NoReturn:
        moves.probe(SourcePhase.COPY)
        moves.cancel()
        moves.cancel()
        moves.probe(SourcePhase.SEND_STATE)
        assert moves.begin() is None
        raise MoveCancelledError("cancelled")

    with pytest.raises(MoveCancelledError):
        moves.follow(move)
    moves.cancel()
    assert told == ["setup", "active", "cancelling", "cancelled"]
    assert not moves.under_way
