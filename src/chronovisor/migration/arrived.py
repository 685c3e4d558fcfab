"""A guest that has come to this process by a move, before it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.migration.destination import Destination
from chronovisor.migration.pause import Pause
from chronovisor.timebase.record import MoveRecord


@dataclass(frozen=True, slots=True)
class Arrived:
    """A guest that was given to this process: it may run when `destination.start` says so."""

    destination: Destination
    host: Host
    record: MoveRecord
    engine: str
    """What executes its past again, if that is kept."""
    tell: Callable[[str], None]
    """Told, in a line, if it cannot be recorded here."""

    def start(self) -> tuple[Guest, Pause | None]:
        """Wait out the rounding and let the guest run, unless it came paused: then return its pause, too."""
        if self.destination.past is not None:
            self._record()
        paused_at = self.destination.paused_at
        guest = self.destination.start(running=paused_at is None)
        return guest, None if paused_at is None else Pause.since(guest, paused_at)

    def _record(self) -> None:
        # Most guests are not recorded.
        from chronovisor.migration.recording import Recording

        try:
            Recording(self.destination.guest, past=self.destination.past, engine=self.engine)
        except MachineError as error:
            # The guest is here for good, recorded or not.
            self.tell(str(error))
