"""How a move can fail, each way with a line that says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronovisor.migration.transfer import MoveReport


class MoveError(Exception):
    """The move did not happen: the guest is at the source, as it was."""


class RestorationError(Exception):
    """A guest's state cannot be restored: nothing of it ran."""


class MoveRefusedError(MoveError):
    """The destination cannot take such a guest; the guest was not even stopped."""


class MoveCancelledError(MoveError):
    """The move was cancelled before COMMIT."""


class NotConvergingError(MoveError):
    """The guest writes its memory faster than it can be sent; it was not stopped."""


class LinkLostError(Exception):
    """A message or its answer did not arrive."""


class StreamError(LinkLostError):
    """What arrived is no stream that this version reads: cut off, damaged, too new, or something else."""


class MoveUndecidedError(Exception):
    """COMMIT left the source and its answer was lost: the guest may run at the destination.

    The source's guest stays paused. `ask` asks the destination again. It returns the report if the guest is
    the destination's, raises `MoveError` (and the guest goes on at the source) if it never will be, and
    raises this error again if there is no answer.
    """

    def __init__(self, move: str, why: str, ask: Callable[[], MoveReport]) -> None:
        super().__init__(
            f"move {move}: the destination's answer to COMMIT was lost ({why}); "
            "the guest stays paused here until the destination says what became of it"
        )
        self.move = move
        self.ask = ask
