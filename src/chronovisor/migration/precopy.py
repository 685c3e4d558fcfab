"""Memory that is sent while the guest runs: in rounds, until what is left fits into the downtime.

The first round carries all memory that is not zeros; each further round carries what was written during the
round before. The destination answers each round, so its duration includes the link and both ends. The guest
can be stopped when the pages that are left take no longer than the downtime limit at the measured rate. It is
stopped then, unless another round would make the downtime much shorter. If the rounds bring the rest no
nearer to the limit, the move does not converge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Final

from chronovisor.machine.guest import Guest
from chronovisor.memory.in_use import each_run_in_use, estimate_in_use, runs_of
from chronovisor.migration.errors import MoveCancelledError, MoveError, NotConvergingError
from chronovisor.migration.messages import Aborted, Message, Received, Round, Zeros
from chronovisor.migration.stream import PIECE
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT
from chronovisor.timebase.policy import CATCH_UP, TimePolicy
from chronovisor.timebase.types import Ticks

PATIENCE: Final = 10
"""Rounds without progress after which a move counts as not converging."""
_GAIN: Final = 15 / 16
"""A round makes progress if it leaves less than this part of the least that was left before."""
_WORTHWHILE: Final = 1 / 2
"""Even if the rest would fit, another round is made if the last round left no more than this part of what it
sent, …"""
_SHORT: Final = 1 / 10
"""… and if the rest takes more than this part of the downtime limit."""
_MEASURED: Final = 1 << 20
"""Bytes that a round has to carry for its rate to count; …"""
_ASSUMED: Final = 100_000_000
"""… and the rate that is assumed until then, in bytes a second."""
LEAST_BANDWIDTH: Final = PIECE
"""Bytes a second: with less the destination would take the pauses for silence."""


@dataclass(frozen=True, slots=True)
class MoveLimits:
    """What a move may cost its guest and the network."""

    downtime: float = 0.05
    """Seconds that the last round may take, by the rate of those before; waits for roundings are apart."""
    bandwidth: int | None = None
    """Bytes of memory a second while the guest runs, at least `LEAST_BANDWIDTH`; None for all there is."""
    clock_error: Ticks = CLOCK_ERROR_LIMIT
    """How far the guest's time may come out from its ideal."""
    time: TimePolicy = CATCH_UP
    """How much of the time that it was away counts for it."""
    stream: int | None = None
    """The number by which the guest is asked to suspend itself for the move; None if it is just stopped."""
    suspend: float = 60.0
    """Seconds that it may take for that once its memory has been sent."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a move has come."""

    round: int = 0
    """The round that is under way: 1, 2, …"""
    sent_bytes: int = 0
    """Of memory, in all rounds."""
    remaining_bytes: int = 0
    """Of memory, of what is known to be still to send."""
    rate: int = 0
    """Bytes a second in this round."""

    def as_json(self) -> dict[str, int]:
        """Return it as an object of JSON."""
        return asdict(self)


class Precopy:
    """Sends the memory of `guest`: in rounds while it runs (`run`), and the rest when it is stopped (`last`).

    `cancelled` ends it between two pieces; `tell` is told, after each, how far it has come.
    """

    def __init__(
        self,
        guest: Guest,
        limits: MoveLimits,
        cancelled: threading.Event,
        tell: Callable[[Progress], None],
    ) -> None:
        self._guest = guest
        self._limits = limits
        self._page_size = guest.system.host.page_size
        self._cancelled = cancelled
        self._tell = tell
        self._pending: set[int] | None = None
        """Pages of an earlier answer of the log that were not sent; None before any round."""
        self._logging = False
        self._rate: float = _ASSUMED
        self._least_left: int | None = None
        self._in_vain = 0
        self._left = 0
        self._begun = self._slept = 0.0
        self._sent_before = 0
        self.rounds = 0
        self.sent_bytes = 0
        self.zero_bytes = 0

    def run(self, ask: Callable[[Message], Message]) -> None:
        """Send rounds until the guest can be stopped. `ask` sends a message and returns its answer.

        NotConvergingError if it never can be, MoveCancelledError, and MoveError if the destination
        gives the move up.
        """
        self._left = estimate_in_use(self._guest.memory)
        self._guest.log_dirty_pages(True)
        self._logging = True
        self._send(ask, ((addr, size, False) for addr, size in each_run_in_use(self._guest.memory)))
        while True:
            pages = self._guest.dirty_pages()
            self._pending = set(pages)
            self._left = left = len(pages) * self._page_size
            fits = self._rate * self._limits.downtime
            sent = self.sent_bytes - self._sent_before
            if left <= fits and (left <= fits * _SHORT or left > sent * _WORTHWHILE):
                return
            if left > fits:
                self._expect_convergence(left)
            self._send(ask, runs_of(self._guest.memory, pages, self._page_size))

    def last(self) -> Iterator[tuple[int, memoryview | Zeros]]:
        """Give all memory of the stopped guest that the destination does not have yet."""
        self.rounds += 1
        self._begin()
        memory = self._guest.memory
        runs: Iterator[tuple[int, int, bool]]
        if self._pending is None:
            self._left = estimate_in_use(memory)
            runs = ((addr, size, False) for addr, size in each_run_in_use(memory))
        else:
            pages = sorted(self._pending.union(self._guest.dirty_pages()))
            self._left = len(pages) * self._page_size
            runs = runs_of(memory, pages, self._page_size)
        self._tell_progress()
        for addr, size, zeros in runs:
            self.check()
            if zeros:
                yield addr, Zeros(size)
            else:
                yield addr, memory.view[addr : addr + size]
            self._count(size, zeros)

    def close(self) -> None:
        """Stop logging the guest's pages."""
        if self._logging:
            self._guest.log_dirty_pages(False)
            self._logging = False

    def check(self) -> None:
        """MoveCancelledError if the move was cancelled."""
        if self._cancelled.is_set():
            raise MoveCancelledError("the move was cancelled, and the guest goes on here")

    def send_nothing(self, ask: Callable[[Message], Message]) -> None:
        """Let the destination hear that this side is there, between two rounds; errors as of `run`."""
        self._send_pieces(ask, iter(()))

    def _send(self, ask: Callable[[Message], Message], runs: Iterator[tuple[int, int, bool]]) -> None:
        self.rounds += 1
        self._pending = set()
        self._begin()
        self._tell_progress()
        self._send_pieces(ask, self._pieces(runs))
        sent = self.sent_bytes - self._sent_before
        if sent >= _MEASURED:
            self._rate = sent / max(time.monotonic() - self._begun - self._slept, 1e-9)

    def _send_pieces(
        self, ask: Callable[[Message], Message], pieces: Iterator[tuple[int, memoryview | Zeros]]
    ) -> None:
        answer = ask(Round(self.rounds, pieces))
        if not isinstance(answer, Received):
            reason = answer.reason if isinstance(answer, Aborted) else f"it answered {type(answer).__name__}"
            raise MoveError(f"the destination could not take the guest's memory: {reason}")
        self.check()

    def _pieces(self, runs: Iterator[tuple[int, int, bool]]) -> Iterator[tuple[int, memoryview | Zeros]]:
        """Give the runs as copies: a write by the guest during the sending would invalidate the checksum."""
        buffer = memoryview(bytearray(PIECE))
        view = self._guest.memory.view
        for addr, size, zeros in runs:
            if zeros:
                self.check()
                yield addr, Zeros(size)
                self._count(size, True)
                continue
            for at in range(addr, addr + size, PIECE):
                self.check()
                piece = buffer[: min(PIECE, addr + size - at)]
                piece[:] = view[at : at + len(piece)]
                yield at, piece
                self._count(len(piece), False)
                self._hold_back()

    def _begin(self) -> None:
        self._begun, self._slept, self._sent_before = time.monotonic(), 0.0, self.sent_bytes

    def _count(self, size: int, zeros: bool) -> None:
        if zeros:
            self.zero_bytes += size
        else:
            self.sent_bytes += size
        self._left = max(0, self._left - size)
        self._tell_progress()

    def _tell_progress(self) -> None:
        rate = (self.sent_bytes - self._sent_before) / max(time.monotonic() - self._begun, 1e-9)
        self._tell(Progress(self.rounds, self.sent_bytes, self._left, int(rate)))

    def _hold_back(self) -> None:
        if self._limits.bandwidth is None:
            return
        due = self._begun + (self.sent_bytes - self._sent_before) / self._limits.bandwidth
        now = time.monotonic()
        if due > now:
            self._cancelled.wait(due - now)
            self._slept += time.monotonic() - now

    def _expect_convergence(self, left: int) -> None:
        if self._least_left is None or left < self._least_left * _GAIN:
            self._least_left, self._in_vain = left, 0
            return
        self._in_vain += 1
        if self._in_vain >= PATIENCE:
            raise NotConvergingError(
                f"the move does not converge, and the guest goes on here: after {self.rounds} rounds "
                f"{left >> 10} KiB are left, "
                f"{left / self._rate * 1000:.0f} ms at {self._rate / 1e6:.0f} MB/s; "
                f"allow more than {self._limits.downtime * 1000:.0f} ms (--downtime-limit), "
                "or have the guest write less"
            )
