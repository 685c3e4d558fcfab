"""Parts of the hypervisor made wrong on purpose, each as a simpler program would have it.

What cannot fail shows nothing: a run with one of these in the place of the right part must be noticed by
those who watch for the promise that it breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chronovisor.hypervisor.dispatch_trace_log import DispatchTraceLog
from chronovisor.hypervisor.host import Parts
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.timebase.offset import Applied, Shift
from chronovisor.timebase.tbu40 import TimebaseRegister
from chronovisor.timebase.types import MASK64, GuestTime

if TYPE_CHECKING:
    from chronovisor.hypervisor.host import Core
    from chronovisor.hypervisor.virtual_core import VirtualCore


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A part made wrong."""

    name: str
    """What is wrong with it, for people."""
    clause: str
    """The clause of the original text that it goes against."""
    parts: Parts
    """A host's parts, this one among them."""


def shift_without_check(tb: TimebaseRegister[int], delta: Any) -> Shift[int]:
    """Move the timebase as `timebase.offset.shift` does, but believe that the low 24 bits never wrap."""
    before = tb.read()
    written = (before + delta) & MASK64
    moved = delta != 0
    tb.write_tbu40(written, when=moved)
    after = tb.read()
    # Never made, but it takes its time: else the run would not be the same one in all else.
    tb.write_tbu40(written, when=False)
    return Shift(before, written, after, moved, wrapped=False)


class OffsetReadAgain(WorldSwitch):
    """Take away the offset that is set now, whatever the entry added."""

    def to_take_away(self, core: Core, vcore: VirtualCore) -> Applied:
        """Return the offset of the virtual core, as it is now."""
        return Applied(vcore.offset)


class SecondariesLetInEarly(WorldSwitch):
    """Let secondary threads in as soon as their virtual core has a core."""

    def secondary_may_enter(self, core: Core) -> bool:
        """Return that they may, whatever the timebase is."""
        return True


class UncheckedLog(DispatchTraceLog):
    """Write what the core's timebase reads, without asking whose time it is."""

    def moment(self, core: Core) -> GuestTime:
        """Return T as if it were the guest's time."""
        return GuestTime(core.timebase.read())


class HostTimeInLog(DispatchTraceLog):
    """Write the host's time into the dispatch trace log."""

    def moment(self, core: Core) -> GuestTime:
        """Return the host's time as if it were the guest's."""
        return GuestTime(core.timebase.tod().value)


SABOTAGES: Final = (
    Sabotage(
        "the wrap check taken out",
        "check if lower 24 bits overflowed",
        Parts(shifter=shift_without_check),
    ),
    Sabotage(
        "the offset read again at exit, after user space changed it",
        "on exiting the guest, it is subtracted from the timebase",
        Parts(world_switch=OffsetReadAgain),
    ),
    Sabotage(
        "the secondary thread let in early",
        "signal secondaries to continue",
        Parts(world_switch=SecondariesLetInEarly, dispatch_trace_log=UncheckedLog),
    ),
    Sabotage(
        "host time in the dispatch trace log",
        "The timebase values in the dispatch trace log need to be guest timebase values",
        Parts(dispatch_trace_log=HostTimeInLog),
    ),
)
"""What the demonstration shows to be caught."""
