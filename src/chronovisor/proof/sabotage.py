"""Parts of the hypervisor made wrong on purpose, each as a simpler program would have it.

A check that cannot fail shows nothing: a run with one of these in the place of the right part must be noticed
by whatever watches for the promise that it breaks. The parts are subclasses of production classes;
`Sabotage.assemble` and `Sabotage.machine` put a hypervisor together with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from chronovisor.hypervisor.dispatch_log_writer import DispatchLogWriter
from chronovisor.hypervisor.hypervisor import Hypervisor, taking_time
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_core import VirtualCore
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.virtual_machine import VirtualMachine
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.processor.core import HardwareThread
from chronovisor.timebase.offset import Applied, Shift, Switch
from chronovisor.timebase.tbu40 import TimebaseRegister
from chronovisor.timebase.types import MASK64, GuestTime


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A hypervisor with a wrong part."""

    name: str
    """What is wrong with it, for people."""
    clause: str
    """The clause of the original text that it violates."""
    assemble: Callable[[Hypervisor], None] = lambda host: None
    """Puts the wrong part into a host in virtual time that has no guests yet."""
    machine: type[VirtualMachine] = VirtualMachine
    """The virtual machines of that host."""


def shift_without_check(tb: TimebaseRegister[int], delta: Any) -> Shift[int]:
    """Move the timebase as `timebase.offset.shift` does, but assume that the low 24 bits never wrap."""
    before = tb.read()
    written = (before + delta) & MASK64
    moved = delta != 0
    tb.write_tbu40(written, when=moved)
    after = tb.read()
    # Never made, but it takes its time, so that the run is the same in all other respects.
    tb.write_tbu40(written, when=False)
    return Shift(before, written, after, moved, wrapped=False)


class OffsetReadAgain(WorldSwitch):
    """Take away the offset that is set now, whatever the entry added."""

    def _restore_host_time(self, stay: Stay, vcore: VirtualCore) -> None:
        if stay.applied is not None:
            stay.applied = Applied(vcore.offset)
        super()._restore_host_time(stay, vcore)


class SecondariesLetInEarly(WorldSwitch):
    """Let secondary threads in as soon as their virtual core has a core."""

    def _enter_as_secondary(self, stay: Stay, thread: HardwareThread, vcpu: int) -> None:
        self._let_in(stay, thread, vcpu)


class UncheckedLog(DispatchLogWriter):
    """Write what the core's timebase reads, without asking whose time it is."""

    def moment(self, stay: Stay) -> GuestTime:
        """Return T as if it were the guest's time."""
        return GuestTime(stay.core.timebase.read())


class HostTimeInLog(DispatchLogWriter):
    """Write the host's time into the dispatch trace log."""

    def moment(self, stay: Stay) -> GuestTime:
        """Return the host's time as if it were the guest's."""
        return GuestTime(stay.core.timebase.tod().value)


class _UncheckedLogs(VirtualMachine):
    def add_vcpu(self, number: int) -> VirtualCpu:
        vcpu = super().add_vcpu(number)
        vcpu.log = UncheckedLog(vcpu)
        return vcpu


class _HostTimeInLogs(VirtualMachine):
    def add_vcpu(self, number: int) -> VirtualCpu:
        vcpu = super().add_vcpu(number)
        vcpu.log = HostTimeInLog(vcpu)
        return vcpu


def _without_wrap_check(host: Hypervisor) -> None:
    host.switch = Switch(taking_time(shift_without_check, host.scheduler, host.ticks_per_instruction))


def _with_offset_read_again(host: Hypervisor) -> None:
    host.world_switch = OffsetReadAgain(host)


def _with_secondaries_let_in_early(host: Hypervisor) -> None:
    host.world_switch = SecondariesLetInEarly(host)


SABOTAGES: Final = (
    Sabotage(
        "the wrap check taken out",
        "check if lower 24 bits overflowed",
        _without_wrap_check,
    ),
    Sabotage(
        "the offset read again at exit, after user space changed it",
        "on exiting the guest, it is subtracted from the timebase",
        _with_offset_read_again,
    ),
    Sabotage(
        "the secondary thread let in early",
        "signal secondaries to continue",
        _with_secondaries_let_in_early,
        _UncheckedLogs,
    ),
    Sabotage(
        "host time in the dispatch trace log",
        "The timebase values in the dispatch trace log need to be guest timebase values",
        machine=_HostTimeInLogs,
    ),
)
"""What the demonstration shows to be caught."""
