"""The clock of a Power host: the processor's timebase register itself, read by the process itself.

There is no call of the kernel for it, as none is needed: `mftb` is for everybody. Two instructions in a page
of their own are a function that ctypes can call.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from collections.abc import Callable
from typing import Final

from chronovisor.kvm.errors import KvmError
from chronovisor.timebase.clock import RealTime
from chronovisor.timebase.types import SourceTime, signed64

_MFTB_R3: Final = 0x7C6C_42A6
_BLR: Final = 0x4E80_0020


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
        page = _executable(struct.pack("<2I", _MFTB_R3, _BLR))
    except OSError as error:
        raise KvmError(
            errno.EACCES,
            f"the timebase cannot be read: this machine lets Python have no executable memory ({error}); "
            "allow memfd_create and PROT_EXEC",
        ) from None
    # PYFUNCTYPE: Python's lock stays held, or a reading would wait for another thread's turn.
    function = ctypes.PYFUNCTYPE(ctypes.c_uint64)(page)
    return function


def _executable(code: bytes) -> int:
    """Return the address of `code` in memory that can be executed and not written; it stays there for good.

    A file's page that is mapped for execution has its instruction cache seen to by the kernel.
    """
    descriptor = os.memfd_create("chronovisor-mftb", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, code)
        # Mapped through the C library: Python's mmap has no address without being writable.
        library = ctypes.CDLL(None, use_errno=True)
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long),
        )
        address = library.mmap(
            None, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0
        )
        if address is None or address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(address)
    finally:
        os.close(descriptor)
