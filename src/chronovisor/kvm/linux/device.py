"""Asking the kernel: an ioctl, and its errno as the interface's error."""

from __future__ import annotations

import ctypes
import errno
import fcntl
from collections.abc import Sequence

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.ids import Cap
from chronovisor.kvm.linux.layouts import CAP_ARGUMENTS, EnableCap, Ioctl


def ask(descriptor: int, request: Ioctl, argument: ctypes.Structure | int = 0, what: str = "") -> int:
    """Make the ioctl and return what it returns; a structure is passed by its address, and written back into.

    KvmError with the kernel's errno; `what` was asked, for people. Python's lock is released meanwhile, but
    for structures of more than 1024 bytes.
    """
    try:
        return fcntl.ioctl(descriptor, request, argument)
    except OSError as error:
        raise refusal(error, what or request.name) from None


def refusal(error: OSError, what: str) -> KvmError:
    """The kernel's errno to a request, with the request's name."""
    return KvmError(error.errno or 0, f"{what}: the kernel says {error.strerror}")


def enable_cap(descriptor: int, cap: int, args: Sequence[int], flags: int) -> None:
    """KVM_ENABLE_CAP on a virtual machine or vCPU."""
    if len(args) > CAP_ARGUMENTS:
        raise KvmError(errno.EINVAL, f"a capability takes at most {CAP_ARGUMENTS} arguments")
    request = EnableCap(cap, flags, (ctypes.c_uint64 * CAP_ARGUMENTS)(*args))
    name = Cap(cap).name if cap in Cap.__members__.values() else str(cap)
    given = "".join(f" {argument:#x}" for argument in args)
    ask(descriptor, Ioctl.ENABLE_CAP, request, f"enabling the capability {name}{given}")
