"""A few instructions of this Power machine that Python can call: what the kernel has no call for."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable
from typing import Final

_MFTB_R3: Final = 0x7C6C_42A6
_DCBST_R3: Final = 0x7C00_186C
_ICBI_R3: Final = 0x7C00_1FAC
_SYNC: Final = 0x7C00_04AC
_ISYNC: Final = 0x4C00_012C
_BLR: Final = 0x4E80_0020

CACHE_BLOCK: Final = 128
"""Bytes that one `dcbst` or `icbi` is about, on POWER8 and POWER9."""


def timebase_function() -> Callable[[], int]:
    """Return a function that executes `mftb` and returns the register; OSError if that is forbidden."""
    # PYFUNCTYPE: Python's lock stays held, or a reading would wait for another thread's turn.
    function: Callable[[], int] = ctypes.PYFUNCTYPE(ctypes.c_uint64)(_executable(_MFTB_R3, _BLR))
    return function


def code_changed_function() -> Callable[[int], None]:
    """Return a function that has all processors fetch a cache block anew, at an address of this process.

    Power ISA 3.0B, Book II 1.8: the block is stored (`dcbst`), then invalidated where instructions are
    fetched from (`icbi`). OSError if executable memory is forbidden.
    """
    code = _executable(_DCBST_R3, _SYNC, _ICBI_R3, _SYNC, _ISYNC, _BLR)
    function: Callable[[int], None] = ctypes.PYFUNCTYPE(None, ctypes.c_uint64)(code)
    return function


def _executable(*words: int) -> int:
    """Return the address of these instructions in memory that can be executed and not written; they stay
    there for good.

    A file's page that is mapped for execution has its instruction cache seen to by the kernel.
    """
    descriptor = os.memfd_create("chronovisor-code", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, struct.pack(f"<{len(words)}I", *words))
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
