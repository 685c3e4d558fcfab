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
    from chronovisor.timebase.types import SourceTime


@dataclass(frozen=True, slots=True)
class Passed:
    """A break- or watchpoint that a vCPU came to and went over."""

    vcpu: int
    executed: int
    """How many instructions the vCPU had executed."""
    tick: SourceTime
    """The clock's, at that instruction."""
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


class Course(Protocol):
    """The course of one machine on a virtual clock. No vCPU may be in `run()`."""

    @property
    def ticks_per_instruction(self) -> int:
        """How far the clock goes with each instruction."""

    @property
    def stepping(self) -> frozenset[int]:
        """The vCPUs whose runs end after one instruction (`Vcpu.single_step`)."""

    def begin(self) -> HiddenState:
        """Have what follows depend on registers, memory and the state that is returned alone."""

    def continue_from(self, hidden: HiddenState) -> None:
        """Give this machine, which has not run yet, what `begin` returned."""

    def executed(self, vcpu: int) -> int:
        """How many instructions a vCPU has executed; it only ever grows."""

    def stop_at(self, vcpu: int, executed: int | None) -> None:
        """Have a vCPU's run end (`DebugExit`, after a step) once it has executed so many instructions, before
        the next one and behind an interrupt that comes before that; None: have it run on.
        """

    def pass_over(self, until: SourceTime | None) -> None:
        """Have vCPUs go over the break- and watchpoints that they come to before a tick of the clock; None:
        over all of them.
        """

    @property
    def passed(self) -> Passed | None:
        """The last of them, since `pass_over`; None if there was none."""
