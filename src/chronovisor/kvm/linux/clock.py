"""The clock of a Power host: the processor's timebase register itself, read by the process itself.

There is no call of the kernel for it, as none is needed: `mftb` is for everybody (`machine_code.py`).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.linux.machine_code import timebase_function
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import SourceTime, signed64


class Timebase(RealTime):
    """The machine's monotonic clock in ticks: its timebase. `read` returns the register, unsigned 64-bit."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._last = read()

    def ticks(self) -> SourceTime:
        """Return the timebase's value; it goes on beyond 2^64, at which the register begins again at 0."""
        # Two threads may each note their own last reading; either is good enough to see that the register
        # wrapped.
        last = self._last
        self._last = now = last + signed64(self._read() - last)
        return SourceTime(now)


def timebase_reader() -> Callable[[], int]:
    """A function that executes `mftb` and returns the register.

    KvmError: ENOSYS if this is no little-endian Power machine, EACCES if executable memory is refused.
    """
    if os.uname().machine != "ppc64le" or sys.byteorder != "little":
        raise KvmError(
            errno.ENOSYS,
            f"this machine is {os.uname().machine}; guests run on the KVM of little-endian Power machines "
            "alone: take the embedded provider",
        )
    try:
        return timebase_function()
    except OSError as error:
        raise KvmError(
            errno.EACCES,
            f"the timebase cannot be read: this machine lets Python have no executable memory ({error}); "
            "allow memfd_create and PROT_EXEC",
        ) from None
