"""The moves of a guest from this process to others: one at a time, and asked about afterwards.

What only a move needs is imported when one begins: most guests stay where they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.migration.phases import Probe, also_told, no_probe
from chronovisor.migration.tracing import UNTRACED, MoveTrace
from chronovisor.timebase.types import Offset

if TYPE_CHECKING:
    from chronovisor.migration.address import Place
    from chronovisor.migration.credentials import Credentials
    from chronovisor.migration.pause import Pause
    from chronovisor.migration.precopy import MoveLimits, Progress
    from chronovisor.migration.recorded_past import PastPart
    from chronovisor.migration.source import Source
    from chronovisor.migration.tcp import TcpChannel, TimeLimits
    from chronovisor.migration.transfer import MoveReport


class Departure:
    """Moves a guest away, and knows whether one of its moves is undecided.

    The guest that has gone ends with `EndReason.MOVED` here. `tell` is told, in a line each, what became of
    the guest when that is not what was asked for; `probe` is told of each phase of a move before it begins,
    and `trace` of the whole move.
    """

    def __init__(
        self,
        guest: Guest,
        tell: Callable[[str], None] = lambda line: None,
        probe: Probe = no_probe,
        trace: MoveTrace = UNTRACED,
    ) -> None:
        self._guest = guest
        self._trace = trace
        self._probe = also_told(probe, trace.phase)
        self._tell = tell
        self._busy = threading.Lock()
        self._going_to: Place | None = None
        self._undecided: MoveUndecidedError | None = None
        self._asked_at: TcpChannel | None = None
        self._leaving: tuple[Source, TcpChannel] | None = None
        self._progress: Progress | None = None
        self._paused: Pause | None = None
        self.on_pause: Callable[[bool], None] = lambda paused: None
        """Told when the guest's owner has stopped it (True), and when it goes on."""

    @property
    def paused(self) -> Pause | None:
        """The pause in which its owner keeps the guest; None for a guest that runs."""
        return self._paused

    @paused.setter
    def paused(self, pause: Pause | None) -> None:
        was, self._paused = self._paused, pause
        if (was is None) != (pause is None):
            self.on_pause(pause is not None)

    @property
    def offset(self) -> Offset | None:
        """The guest's offset while it runs during a move; None at other times."""
        leaving = self._leaving
        return leaving[0].offset if leaving is not None and self._guest.running else None

    @property
    def state(self) -> str:
        """What the guest is doing: running, paused, moving, undecided or ended."""
        if self._guest.end is not None:
            return "ended"
        if self._going_to is not None:
            return "moving"
        if self._undecided is not None:
            return "undecided"
        return "running" if self._guest.running else "paused"

    @contextmanager
    def no_move(self, patience: float = 5.0) -> Iterator[None]:
        """Allow no move while the block lasts.

        MachineError if a move is under way, or if another one still allows none after `patience` seconds.
        """
        if not self._busy.acquire(timeout=0.0 if self._going_to else patience):
            doing = f"is on its way to {self._going_to}" if self._going_to else "is busy, perhaps being saved"
            raise MachineError(f"{self._guest.name} {doing}: wait for that")
        try:
            yield
        finally:
            self._busy.release()

    @property
    def progress(self) -> Progress | None:
        """How far the current move has come; None if there is no move."""
        return self._progress

    def migrate(
        self,
        address: Place,
        limits: TimeLimits,
        move_limits: MoveLimits | None = None,
        credentials: Credentials | None = None,
        token: bytes = b"",
    ) -> MoveReport:
        """Move the guest to the process that waits at `address`; return the move's report.

        A guest that its owner paused arrives paused. Raises MachineError (the guest goes on) for what cannot
        be done, MoveError (it goes on) if the move failed, MoveUndecidedError (it stays paused) if its
        outcome is unknown.
        """
        from chronovisor.migration.precopy import MoveLimits, Progress
        from chronovisor.migration.source import Source
        from chronovisor.migration.stream import Header
        from chronovisor.migration.tcp import TcpChannel, client_context

        address.resolve()
        client_context(address, credentials)
        guest = self._guest
        with self.no_move():
            if self._undecided is not None:
                raise MachineError(
                    f"{guest.name} is paused, as the outcome of its move {self._undecided.move} is unknown: "
                    "ask again with --resolve, or take it back with --force-resume"
                )
            if guest.end is not None or not (guest.running or self.paused is not None):
                raise MachineError(f"{guest.name} does not run, so it cannot move")
            guest.check_present()
            channel = TcpChannel(address, Header.of(guest), limits, credentials)
            source = Source(
                guest,
                channel,
                move_limits or MoveLimits(),
                console_stays=True,
                tell=self._note,
                paused_at=self.paused.guest_time if self.paused is not None else None,
                token=token,
                probe=self._probe,
                shares_clock=False,
                past=_past_of(guest),
            )
            self._trace.begins(f"to {address}")
            try:
                self._progress = Progress()
                self._leaving = source, channel
                self._going_to = address
                return self._settle(lambda: _give_away(source), channel)
            finally:
                self._leaving = self._progress = self._going_to = None

    def cancel(self, decided: Callable[[], None] = lambda: None) -> str:
        """Cancel the current move and return its id; `decided` is called before. From any thread.

        MachineError if there is no move, or it is too late because COMMIT has left.
        """
        leaving = self._leaving
        if leaving is None:
            raise MachineError(f"{self._guest.name} is not on its way anywhere")
        source, channel = leaving
        source.cancel(decided)
        channel.interrupt()
        return source.move

    def resolve(self) -> MoveReport:
        """Ask again what became of the undecided move, as `migrate`; MachineError if no move is undecided."""
        with self.no_move():
            undecided, channel = self._undecided, self._asked_at
            if undecided is None or channel is None:
                raise MachineError(f"{self._guest.name} has no move whose outcome is unknown")
            return self._settle(undecided.ask, channel)

    def force_resume(self) -> str:
        """Let the guest go on here, on its operator's word that it does not run elsewhere; the move's id."""
        with self.no_move():
            undecided = self._undecided
            if undecided is None:
                raise MachineError(f"{self._guest.name} has no move whose outcome is unknown")
            if self.paused is None:
                # MachineError if the other side has its disk: then it runs there.
                self._guest.resume()
            self._undecided = self._asked_at = None
            self._tell(f"the guest goes on here by its operator's word; move {undecided.move} is forgotten")
            return undecided.move

    def wait_until_done(self) -> None:
        """Wait for the end of a move that is under way."""
        with self._busy:
            pass

    def _note(self, progress: Progress) -> None:
        self._progress = progress
        self._trace.round(progress.round)

    def _settle(self, attempt: Callable[[], MoveReport], channel: TcpChannel) -> MoveReport:
        try:
            report = attempt()
        except MoveUndecidedError as undecided:
            if self._undecided is None:
                self._tell(str(undecided))
            self._trace.ends("undecided", {})
            self._undecided, self._asked_at = undecided, channel
            raise
        except MoveError:
            self._trace.ends("failed", {})
            self._undecided = self._asked_at = None
            if not self._guest.running and self._guest.end is None and self.paused is None:
                # Another process took its disk meanwhile: it waits until its owner resumes it.
                from chronovisor.migration.pause import Pause

                self.paused = Pause(self._guest, goes_on=True)
            raise
        finally:
            channel.close()
        self._undecided = self._asked_at = None
        self._trace.ends("completed", report.as_json())
        self._guest.leave(str(channel.address))
        return report


def _past_of(guest: Guest) -> Callable[[], Iterable[PastPart]]:
    if guest.recorder is None:
        return tuple
    from chronovisor.migration.recording import Recording

    assert isinstance(guest.recorder, Recording)
    return guest.recorder.past.parts


def _give_away(source: Source) -> MoveReport:
    try:
        return source.give_away()
    except MoveUndecidedError as undecided:
        # Ask at once: often only the connection was lost, and the destination can answer.
        return undecided.ask()
