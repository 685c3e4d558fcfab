"""What KVM_RUN says of exits that user space has no answer to."""

from __future__ import annotations

from chronovisor.kvm.exits import DebugExit, Exit, FailEntry, InternalError, SystemEvent
from chronovisor.kvm.ids import ExitReason, SystemEventType
from chronovisor.kvm.linux.layouts import KvmRun


def answerless_exit(shared: KvmRun, vcpu: int) -> Exit:
    """Return the exit that the page shared with the kernel tells of, for the vCPU of that number."""
    match shared.exit_reason:
        case ExitReason.DEBUG:
            # HV sets no status: it has breakpoints in memory alone.
            return DebugExit(shared.debug.arch.address, stepped=False)
        case ExitReason.FAIL_ENTRY:
            reason = shared.fail_entry.hardware_entry_failure_reason
            return FailEntry(
                reason, f"vCPU {vcpu}: the kernel could not enter the guest (reason {reason:#x})"
            )
        case ExitReason.SYSTEM_EVENT:
            event = shared.system_event
            return SystemEvent(SystemEventType(event.type), tuple(event.data[: event.ndata]))
        case ExitReason.SHUTDOWN:
            return SystemEvent(SystemEventType.SHUTDOWN)
        case ExitReason.INTERNAL_ERROR:
            return InternalError(f"vCPU {vcpu}: KVM had an internal error, number {shared.internal.suberror}")
        case reason:
            known = reason in ExitReason.__members__.values()
            name = ExitReason(reason).name if known else "unknown here"
            return InternalError(f"vCPU {vcpu}: KVM_RUN ended for reason {reason} ({name})")
