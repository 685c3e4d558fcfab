"""Where guests come in to `receive`: at an address of the command line's, or of a monitor's client."""

from __future__ import annotations

import threading
from dataclasses import replace

from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import Place
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.credentials import Credentials


class Entrance:
    """Listens for guests once it is opened. Opening, waiting and closing may be on different threads."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._opening = threading.Lock()
        self._opened = threading.Event()
        self._arrivals: Arrivals | None = None
        self.given_up = False
        """Whether its owner waits no more, as a monitor's client said."""

    @property
    def address(self) -> Place | None:
        """The place at which a guest can come in, with its port; None before that is open."""
        return None if self._arrivals is None else self._arrivals.address

    def open(self, place: Place, credentials: Credentials | None = None) -> Place:
        """Listen at a place, and return it with its port; MachineError if that is done already, or fails.

        Under TLS with these `credentials`, if there are any, and not with those of the terms.
        """
        with self._opening:
            if self._arrivals is not None:
                raise MachineError(f"a guest is waited for already, at {self._arrivals.address}")
            terms = self._terms if credentials is None else replace(self._terms, credentials=credentials)
            self._arrivals = Arrivals(place, terms)
            self._opened.set()
            return self._arrivals.address

    def open_for_client(self, place: Place, credentials: Credentials | None) -> None:
        """Answer QMP's `migrate-incoming`."""
        # That it is of this machine alone is told at once.
        place.resolve(listen=True)
        self._terms.tell(f"a guest is waited for at {self.open(place, credentials)}")

    def wait(self, timeout: float | None) -> Arrived | None:
        """Wait until it is open, and then for a guest, each for `timeout` seconds.

        None if none came, or it was given up.
        """
        if not self._opened.wait(timeout) or self._arrivals is None:
            return None
        return self._arrivals.wait(timeout)

    def take_another(self) -> None:
        """Accept a guest again, now that the one that came is gone."""
        if self._arrivals is not None:
            self._arrivals.take_another()

    def give_up(self) -> None:
        """Have `wait` end: no guest is wanted any more."""
        self.given_up = True
        self._opened.set()
        self.close()

    def close(self) -> Arrived | None:
        """Listen no longer; return the guest that is here by now, None if none will be."""
        return None if self._arrivals is None else self._arrivals.close()
