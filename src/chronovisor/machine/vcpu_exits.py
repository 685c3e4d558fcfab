"""What is done when a vCPU leaves its guest for user space."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from chronovisor.kvm.exits import DebugExit, Exit, FailEntry, HcallExit, InternalError, MmioExit, SystemEvent
from chronovisor.kvm.ids import SystemEventType
from chronovisor.machine.ending import EndReason, GuestEnd
from chronovisor.machine.errors import OutputLostError
from chronovisor.machine.hypercall_answers import answer_hypercall
from chronovisor.machine.platform import Platform
from chronovisor.machine.vcpu_thread import VcpuThread


def handle_exit(
    platform: Platform,
    thread: VcpuThread,
    exit_: Exit,
    debugged: Callable[[DebugExit], None],
    finish: Callable[[GuestEnd], None],
) -> None:
    """Handle an exit on the vCPU's thread. `debugged` takes those for a debugger; `finish` ends the guest."""
    number = thread.vcpu.id
    match exit_:
        case HcallExit(nr=call):
            thread.exits[call] += 1
            answer_hypercall(platform, thread, exit_)
        case DebugExit():
            thread.exits["debug"] += 1
            debugged(exit_)
        case SystemEvent(type=SystemEventType.CRASH, message=message):
            platform.crash(f"the guest crashed: {message}")
        case MmioExit(phys_addr=address, is_write=is_write):
            at = thread.vcpu.get_regs().pc
            what = "wrote to" if is_write else "read from"
            platform.crash(
                f"the guest crashed on vCPU {number}: it {what} {address:#x}, at which it has no memory, "
                f"at {at:#x}"
            )
        case FailEntry(message=message) | InternalError(message=message):
            finish(GuestEnd(EndReason.INTERNAL_ERROR, message or "the guest could not be entered"))
        case _:
            finish(GuestEnd(EndReason.INTERNAL_ERROR, f"vCPU {number}: unexpected exit {exit_}"))


def end_by_error(thread: VcpuThread, error: Exception) -> GuestEnd:
    """Return how a guest ends one of whose vCPUs' threads broke."""
    if isinstance(error, OutputLostError):
        return GuestEnd(EndReason.OUTPUT_LOST, str(error))
    details = "".join(traceback.format_exception(error))
    message = f"vCPU {thread.vcpu.id}: {type(error).__name__}: {error}"
    return GuestEnd(EndReason.INTERNAL_ERROR, message, details)
