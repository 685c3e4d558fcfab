"""What a vCPU tells of its runs while somebody traces it.

The vCPU's own thread tells, in order, so that begins and ends nest. Who is told reads the clock, unless a
moment (a tick of the host's clock, `SourceTime`) is told with the event. `timebase.trace` has records of
another kind: each step of the switch itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from chronovisor.timebase.types import Offset, SourceTime


class Work(NamedTuple):
    """What a vCPU has done since it was made, and nobody was told of."""

    instructions: int
    hypercalls: int
    """Hypercalls that programs answered within the guest."""
    decrementers: int
    """Decrementer interrupts that native code entered by itself."""
    externals: int
    """The same of external interrupts."""
    page_faults: int
    """The same of storage interrupts."""


class RunTrace(Protocol):
    """Told what happens to one vCPU inside its run.

    While nobody traces, a run asks no more than whether there is a trace. Methods must be quick, and they
    must not raise.
    """

    told: bool
    """Whether the present run is told; otherwise only `stolen` ticks, hypercalls and interrupts are."""
    times_calls: bool
    """Whether it is also told when hypercalls begin."""

    def entering(self) -> None:
        """The vCPU asks for a core."""

    def entered(self, now: SourceTime, offset: Offset, core: int, stolen: int) -> None:
        """The core's timebase is the guest's, and the guest's next instruction is about to be executed.

        `stolen`: ticks for which other virtual cores kept the vCPU from a core before this entry.
        """

    def left(self, now: SourceTime, work: Callable[[], Work]) -> None:
        """The guest's last instruction has been executed; the core's timebase may still be the guest's.

        `work` says what the vCPU has done.
        """

    def out(self) -> None:
        """The core's timebase is the host's again, or the entry did not succeed."""

    def ceding(self) -> None:
        """The vCPU waits in H_CEDE."""

    def woken(self, reason: str) -> None:
        """The wait is over; `reason` says what ended it, in capitals."""

    def now(self) -> SourceTime:
        """Return the present moment."""

    def called(self, number: int, begun: SourceTime | None) -> None:
        """The hypervisor has answered the hypercall `number`, which it was asked at `begun`."""

    def interrupted(self, name: str, late: int) -> None:
        """The hypervisor has the guest enter an interrupt; `late` ticks after it was due if that is known,
        otherwise 0.
        """

    def executed(self, work: Callable[[], Work]) -> None:
        """The vCPU has executed instructions, and stays in the guest. `work` says what it has done."""
