"""One stay of a virtual core on a core.

A stay begins when the virtual core takes the core and ends when it gives the core back. What is true of one
stay alone is kept here, so that nothing of it is left at the next one.
"""

from __future__ import annotations

from typing import Protocol

from chronovisor.engine.state import Thread
from chronovisor.hypervisor.contender import Contender
from chronovisor.processor.core import Core
from chronovisor.timebase.offset import Applied
from chronovisor.timebase.tbu40 import HostTimebase
from chronovisor.timebase.types import Offset

_NONE = Offset(0)


class Occupant(Protocol):
    """A vCPU on the core, as its stay sees it."""

    state: Thread

    @property
    def ceded(self) -> bool:
        """Whether it has made H_CEDE and waits."""


class Stay:
    """One stay on `core`. The thread of the vCPU `primary` switches the core's timebase.

    Changed under the host's monitor.
    """

    # Slots, and all of them set: an attribute that its class has takes ten times as long to look up.
    __slots__ = (
        "applied",
        "contender",
        "core",
        "entered_with",
        "failure",
        "host_timebase",
        "inside",
        "kept",
        "leaving",
        "out",
        "primary",
        "time_slice_over",
    )

    def __init__(self, core: Core, contender: Contender, primary: Occupant) -> None:
        self.core = core
        self.contender = contender
        """The virtual core whose stay it is."""
        self.primary = primary
        self.inside: list[Occupant] = [primary]
        """The vCPUs that have come in since the stay began."""
        self.entered_with: Offset = _NONE
        """The offset that the entry adds to the core's timebase, noted before the switch."""
        self.applied: Applied | None = None
        """The offset that the core's timebase carries now; None while the timebase is the host's."""
        self.failure: str | None = None
        """Why the entry failed; None if it did not."""
        self.leaving = False
        """Whether every thread has to come out."""
        self.time_slice_over = False
        """Whether it ends because another virtual core is to have the core."""
        self.out = 0
        """How many of the vCPUs have left the guest."""
        self.host_timebase: HostTimebase | None = None
        """The core's timebase once the exit has restored the host's time."""
        self.kept = 0
        """How many of the vCPUs have passed the barrier behind which the host's time is restored."""

    def leave_soon(self) -> None:
        """Make every thread that is in the guest come out."""
        if not self.leaving:
            self.leaving = True
            for occupant in self.inside:
                occupant.state.request_exit()

    def end_naps(self) -> None:
        """Have nobody keep the core who does not use it: another virtual core waits for one."""
        for occupant in self.inside:
            occupant.state.most_nap = 0
            occupant.state.request_exit()

    @property
    def all_out(self) -> bool:
        """Whether every vCPU has left the guest."""
        return self.out == len(self.inside)

    @property
    def all_ceded(self) -> bool:
        """Whether every vCPU inside has ceded, so that the core is idle."""
        return all(occupant.ceded for occupant in self.inside)
