"""The exact course of a machine in virtual time: what someone needs who has a guest do again what it did.

KVM has nothing like it. A guest that is put together from registers and memory (as after a move) goes on
from there; two such guests go on in the same way, instruction for instruction, if what no register shows is
the same, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from chronovisor.memory import Watchpoint


@dataclass(frozen=True, slots=True)
class Passed:
    """A break- or watchpoint that a vCPU came to and went over."""

    vcpu: int
    executed: int
    """How many instructions the vCPU had executed."""
    watchpoint: Watchpoint | None
    """None for a breakpoint."""


@dataclass(frozen=True, slots=True)
class HiddenState:
    """What no register shows and the course depends on."""

    prodded: tuple[bool, ...]
    """Which vCPUs wake from their next H_CEDE at once."""
    reservations: tuple[tuple[int, int, int] | None, ...]
    """Each vCPU's reservation: real address, bytes, and the value that was read."""
    random: tuple[Any, ...]
    """The host's generator of random numbers."""
    timebases: tuple[int, ...]
    """By how much each of its cores' timebases is ahead of the host's: 0, unless something is wrong."""


@dataclass(frozen=True, slots=True)
class HostShape:
    """What of a host on a virtual clock the course of its machines depends on."""

    tb_origin: int
    """Its timebase when the clock stood at 0."""
    cores: int
    threads_per_core: int
    cpu_model: str
    ticks_per_instruction: int
    """How far the clock goes with each instruction."""


class Course(Protocol):
    """The course of one machine on a virtual clock. No vCPU may be in `run()`."""

    @property
    def host(self) -> HostShape:
        """The host on which the machine runs."""

    @property
    def stepping(self) -> frozenset[int]:
        """The vCPUs whose runs end after one instruction (`Vcpu.single_step`)."""

    def begin(self) -> HiddenState:
        """Have what follows depend on registers, memory and the state that is returned alone."""

    def continue_from(self, hidden: HiddenState) -> None:
        """Restore what `begin` returned, in this machine and its host. The machine has not run yet."""

    def executed(self, vcpu: int) -> int:
        """How many instructions a vCPU has executed; it only ever grows."""

    @property
    def total(self) -> int:
        """How many instructions all vCPUs have executed. One executes at a time, so it names a moment."""

    def repeat(
        self,
        end: int | None = None,
        end_of: tuple[int, int] | None = None,
        passes_before: int | None = 0,
    ) -> None:
        """Say how the machine does again what it did.

        Runs end (`DebugExit`, as after a step) when the `total` is `end`, before anything else happens; or
        when a vCPU, `end_of[0]`, has executed `end_of[1]` instructions and is before its next one, behind an
        interrupt that comes before that. vCPUs go over the break- and watchpoints that they come to before
        the total is `passes_before`; None: over all of them.
        """

    @property
    def passed(self) -> Passed | None:
        """The last that was gone over, since `repeat`; None if there was none."""
