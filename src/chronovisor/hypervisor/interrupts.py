"""Which interrupts are pending for a vCPU, and in which order they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chronovisor.isa.bits import MSR

if TYPE_CHECKING:
    from chronovisor.hypervisor.virtual_cpu import VirtualCpu


_EE = int(MSR.EE)


class PendingInterrupts:
    """What waits to interrupt a vCPU from outside. Set under the host's monitor, from any thread."""

    __slots__ = ("external", "machine_check", "system_reset")

    def __init__(self) -> None:
        self.system_reset = False
        """Once: taken back by its delivery."""
        self.machine_check: int | None = None
        """Once: SRR1's bits for its cause."""
        self.external = False
        """A level: there until whoever raised it lowers it."""


def wakes(vcpu: VirtualCpu) -> bool:
    """Whether something is pending that ends an H_CEDE (which has set MSR[EE])."""
    pending = vcpu.pending
    return (
        pending.external
        or pending.system_reset
        or pending.machine_check is not None
        or vcpu.decrementer_pending()
    )


def deliver(vcpu: VirtualCpu) -> None:
    """Enter the pending interrupt of the highest rank that MSR lets through, if there is one.

    The order is that of Power ISA 3.0B Book III 6.7.2: system reset and machine check, which nothing masks,
    then external before decrementer. An entry clears MSR[EE], so that one is all that an instruction boundary
    can take.
    """
    pending, state = vcpu.pending, vcpu.state
    if pending.system_reset:
        pending.system_reset = False
        _enter(vcpu, "SYSTEM_RESET")
    elif pending.machine_check is not None:
        with vcpu.host.scheduler.monitor:
            cause, pending.machine_check = pending.machine_check, None
        _enter(vcpu, "MACHINE_CHECK", cause)
    elif state.MSR & _EE:
        if pending.external:
            _enter(vcpu, "EXTERNAL")
        elif vcpu.decrementer_pending():
            _enter(vcpu, "DECREMENTER")


def _enter(vcpu: VirtualCpu, name: str, cause: int = 0) -> None:
    vcpu.machine.engine.interrupt(vcpu.state, name, cause)
