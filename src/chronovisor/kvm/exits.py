"""Why KVM_RUN came back: one class for each exit reason that a Power guest can cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from chronovisor.kvm.ids import ExitReason, SystemEventType
from chronovisor.memory.watched import Watchpoint


@dataclass(slots=True)
class HcallExit:
    """KVM_EXIT_PAPR_HCALL: a hypercall that the kernel's half leaves to user space.

    Set `ret` (a status, signed or as 64 bits) and `results` (at most nine, for r4, r5, …) before the next
    `run()`, which puts them into the guest's registers first of all; r4.. beyond `results` keep what they
    held. The guest's pc is already behind the `sc 1`.
    """

    reason: ClassVar[ExitReason] = ExitReason.PAPR_HCALL
    nr: int
    args: tuple[int, ...]
    """r4 to r12, always nine, unsigned 64-bit."""
    ret: int = 0
    results: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """`KVM_RUN` returned EINTR: the vCPU was kicked, and a pending hypercall's answer is in its registers."""

    reason: ClassVar[ExitReason] = ExitReason.INTR


@dataclass(frozen=True, slots=True)
class DebugExit:
    """KVM_EXIT_DEBUG: the instruction at effective address `address` is next.

    `stepped`: a single step is done (KVM_SET_GUEST_DEBUG). With a `watchpoint` the instruction accesses that
    place; otherwise there is a breakpoint.
    """

    reason: ClassVar[ExitReason] = ExitReason.DEBUG
    address: int
    stepped: bool
    watchpoint: Watchpoint | None = None


@dataclass(slots=True)
class MmioExit:
    """KVM_EXIT_MMIO: an access to a guest real address that has no memory.

    For a load, set `data` before the next `run()`.
    """

    reason: ClassVar[ExitReason] = ExitReason.MMIO
    phys_addr: int
    size: int
    is_write: bool
    data: int = 0


@dataclass(frozen=True, slots=True)
class FailEntry:
    """KVM_EXIT_FAIL_ENTRY: the vCPU's state let no entry happen."""

    reason: ClassVar[ExitReason] = ExitReason.FAIL_ENTRY
    hardware_entry_failure_reason: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class SystemEvent:
    """KVM_EXIT_SYSTEM_EVENT. CRASH is Chronovisor's answer to a guest that can run nothing any more.

    For CRASH `data` is (vector of the interrupt that went wrong, SRR0, SRR1), and `message` says it for
    people. The kernel has no such answer on Power: there the guest would take interrupts for ever.
    """

    reason: ClassVar[ExitReason] = ExitReason.SYSTEM_EVENT
    type: SystemEventType
    data: tuple[int, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class InternalError:
    """KVM_EXIT_INTERNAL_ERROR: the hypervisor itself went wrong; the vCPU cannot go on."""

    reason: ClassVar[ExitReason] = ExitReason.INTERNAL_ERROR
    message: str


Exit = HcallExit | Interrupted | DebugExit | MmioExit | FailEntry | SystemEvent | InternalError
