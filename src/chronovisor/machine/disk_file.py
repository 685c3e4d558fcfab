"""A file that is a guest's disk: sector for sector its contents ("raw"), locked while a guest has it.

The lock is an open file description lock on the whole file (fcntl(2), F_OFD_SETLK): one guest that writes, or
any number that only read. QEMU's own locks lie in the same file, so a disk that is written to is QEMU's or
ours.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from chronovisor.machine.disk import SECTOR, Disk, DiskOption
from chronovisor.machine.files import FileError, open_descriptor

_QCOW2: Final = b"QFI\xfb"
"""How a file of that format begins."""
_FLOCK: Final = struct.Struct("hhqqi4x")
"""Linux's `struct flock`, for 64-bit processes."""
_MOST_VIEWS: Final = 1024
"""Pieces of memory in one system call (IOV_MAX)."""
_LONG: Final = 0.02
"""Seconds that a write into the cache takes only if the host holds it up."""
_SLOW_FOR: Final = 1.0
"""Seconds for which nobody who is in a hurry writes after that."""
_FALLOC_PUNCH_HOLE: Final = 0x1 | 0x2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE (fallocate(2))."""


class DiskFile(Disk):
    """A raw disk."""

    def __init__(self, option: DiskOption) -> None:
        super().__init__(option)
        self._locked = False
        self._slow_until = 0.0
        self._descriptor = self._open()
        try:
            self.size = self._measure(option.format)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _open(self) -> int:
        try:
            return open_descriptor(self.path, os.O_RDONLY if self.read_only else os.O_RDWR)
        except FileError as error:
            readable = not self.read_only and os.path.isfile(self.path) and os.access(self.path, os.R_OK)
            raise self.refused(f"{error}{_ONLY_READABLE if readable else ''}") from None

    def _measure(self, form: str) -> int:
        size = os.fstat(self._descriptor).st_size
        if not form and os.pread(self._descriptor, len(_QCOW2), 0) == _QCOW2:
            raise self.refused(
                "it looks like a disk of format qcow2: write format=qcow2, or format=raw if its bytes are "
                "the disk's"
            )
        if size == 0 or size % SECTOR:
            raise self.refused(
                f"it has {size} bytes, and a disk has whole sectors of {SECTOR}: is it truncated?"
            )
        return size

    @property
    def changed_ns(self) -> int:
        """When it was last written to, by the clock of its file system: ns since 1970."""
        return max(0, os.fstat(self._descriptor).st_mtime_ns)

    def lock(self) -> None:
        """Lock it, once or again; MachineError if another process has it."""
        if self._locked:
            return
        kind = fcntl.F_RDLCK if self.read_only else fcntl.F_WRLCK
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                others = "a guest that writes to it" if self.read_only else "another guest"
                raise self.refused(f"it is in use by {others}") from None
            raise self.refused(f"it cannot be locked: {error.strerror}") from None
        self._locked = True

    def unlock(self) -> None:
        """Have all that was written on the disk, and let others lock it; MachineError if that fails."""
        if not self._locked:
            return
        self.save()
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
        self._locked = False

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill memory from an offset on; OSError if that fails, EIO if the file is shorter by now."""
        self._transfer(os.preadv, offset, into)

    @property
    def at_once(self) -> int | None:
        """The file's descriptor."""
        return self._descriptor

    @property
    def delays(self) -> bool:
        """Whether writing took long a moment ago, and is not to be tried yet.

        Writing takes long while the host has more to write back than it wants to keep in its cache.
        """
        return self._slow_until > 0

    def read_at_once(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Fill memory as `read` does, and wait for nothing; False if the host has not all of it in its cache.

        Then some of it may be filled.
        """
        try:
            done = os.preadv(self._descriptor, into[:_MOST_VIEWS], offset, os.RWF_NOWAIT)
        except OSError:
            return False
        return done == sum(map(len, into))

    def write_at_once(self, offset: int, data: Sequence[memoryview]) -> bool:
        """Write memory as `write` does; False if that fails, or for a while if it `delays`.

        Some of it may be written then.
        """
        begun = monotonic()
        if begun < self._slow_until:
            return False
        self._slow_until = 0.0
        try:
            done = os.pwritev(self._descriptor, data[:_MOST_VIEWS], offset)
        except OSError:
            return False
        ended = monotonic()
        if ended - begun > _LONG:
            self._slow_until = ended + _SLOW_FOR
        return done == sum(map(len, data))

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Write memory from an offset on; OSError if that fails."""
        self._transfer(os.pwritev, offset, data)

    def flush(self) -> None:
        """Return when all that was written is on the disk; OSError if that fails."""
        if not self.read_only:
            os.fdatasync(self._descriptor)

    def discard(self, offset: int, size: int) -> None:
        """Give back the space of some contents, which are zeros then; OSError if that fails."""
        if _libc.fallocate(self._descriptor, _FALLOC_PUNCH_HOLE, offset, size):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Close the file, and with it its lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._locked = -1, False

    def _transfer(
        self, call: Callable[[int, Sequence[memoryview], int], int], offset: int, views: Sequence[memoryview]
    ) -> None:
        left = [view for view in views if len(view)]
        while left:
            done = call(self._descriptor, left[:_MOST_VIEWS], offset)
            if done == 0:
                raise OSError(errno.EIO, "the file has become shorter")
            offset += done
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if done:
                left[0] = left[0][done:]


_ONLY_READABLE: Final = "; with `,ro` behind it the guest may only read it"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
