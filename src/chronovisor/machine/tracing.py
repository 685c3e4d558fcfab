"""What a guest tells of its runs while somebody traces it: user space's half of `timebase.run_trace`."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from chronovisor.timebase.run_trace import RunTrace


class VcpuTrace(RunTrace, Protocol):
    """Told what happens to one vCPU, on its own thread."""

    def run_begins(self) -> None:
        """User space lets the vCPU run."""

    def run_ends(self, reason: Enum, hypercall: int | None) -> None:
        """The run came back to user space, for `reason`, an exit reason of KVM's; if that is a hypercall, of
        this number.
        """

    def handled(self) -> None:
        """User space has done what the run came back for."""


class GuestTrace(Protocol):
    """Told what happens to one guest."""

    def vcpu(self, number: int) -> VcpuTrace:
        """Return what is told of this vCPU."""

    def may_run(self, permitted: bool) -> None:
        """The guest may run from now on, or is asked to stop. From any thread; repetitions mean nothing."""
