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
from dataclasses import dataclass
from typing import Final

from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import FileError, open_descriptor

SECTOR: Final = 512
"""Bytes."""
FORMATS: Final = ("raw", "qcow2")
_QCOW2: Final = b"QFI\xfb"
"""How a file of that format begins."""
_FLOCK: Final = struct.Struct("hhqqi4x")
"""Linux's `struct flock`, for 64-bit processes."""
_MOST_VIEWS: Final = 1024
"""Pieces of memory in one system call (IOV_MAX)."""
_FALLOC_PUNCH_HOLE: Final = 0x1 | 0x2
"""FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE (fallocate(2))."""


@dataclass(frozen=True, slots=True)
class DiskOption:
    """A disk as a user names it."""

    path: str
    read_only: bool = False
    format: str = ""
    """"raw", or nothing: raw too, unless the file looks like another format."""

    @classmethod
    def parse(cls, text: str) -> DiskOption:
        """Read `FILE[,ro][,format=raw|qcow2]`; MachineError if it is something else.

        A comma in the file's name is written twice.
        """
        path, *options = text.replace(",,", "\0").split(",")
        path = path.replace("\0", ",")
        read_only, form = False, ""
        for option in options:
            key, _, value = option.partition("=")
            if option == "ro":
                read_only = True
            elif key == "format" and value in FORMATS:
                form = value
            else:
                raise MachineError(f"disk {text!r}: {option!r} is no option: write FILE[,ro][,format=raw]")
        if not path:
            raise MachineError(f"disk {text!r}: it names no file")
        return cls(path, read_only, form)


class DiskFile:
    """An open disk. It may be read and written once it is locked.

    MachineError for a file that cannot be a disk.
    """

    def __init__(self, option: DiskOption) -> None:
        self.path = option.path
        self.read_only = option.read_only
        self._locked = False
        if option.format == "qcow2":
            raise self._refused(
                "disks of format qcow2 are not supported: have `qemu-img convert -O raw` make a raw one"
            )
        self._descriptor = self._open()
        try:
            self.size = self._measure(option.format)
            """In bytes."""
        except BaseException:
            os.close(self._descriptor)
            raise

    def _open(self) -> int:
        try:
            return open_descriptor(self.path, os.O_RDONLY if self.read_only else os.O_RDWR)
        except FileError as error:
            readable = not self.read_only and os.path.isfile(self.path) and os.access(self.path, os.R_OK)
            raise self._refused(f"{error}{_ONLY_READABLE if readable else ''}") from None

    def _measure(self, form: str) -> int:
        size = os.fstat(self._descriptor).st_size
        if not form and os.pread(self._descriptor, len(_QCOW2), 0) == _QCOW2:
            raise self._refused(
                "it looks like a disk of format qcow2: have `qemu-img convert -O raw` make a raw one, "
                "or write format=raw if its bytes are the disk's"
            )
        if size == 0 or size % SECTOR:
            raise self._refused(
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
                raise self._refused(f"it is in use by {others}") from None
            raise self._refused(f"it cannot be locked: {error.strerror}") from None
        self._locked = True

    def unlock(self) -> None:
        """Have all that was written on the disk, and let others lock it; MachineError if that fails."""
        if not self._locked:
            return
        self.save()
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
        self._locked = False

    def save(self) -> None:
        """Have all that was written on the disk, as `flush`; MachineError if that fails."""
        try:
            self.flush()
        except OSError as error:
            raise self._refused(f"what the guest wrote could not be saved: {error.strerror}") from None

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill memory from an offset on; OSError if that fails, EIO if the file is shorter by now."""
        self._transfer(os.preadv, offset, into)

    def read_at_once(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Fill memory as `read` does, and wait for nothing; False if the host has not all of it in its cache.

        Then some of it may be filled.
        """
        try:
            done = os.preadv(self._descriptor, into[:_MOST_VIEWS], offset, os.RWF_NOWAIT)
        except OSError:
            return False
        return done == sum(map(len, into))

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

    def _refused(self, reason: str) -> MachineError:
        return MachineError(f"disk {self.path}: {reason}")


_ONLY_READABLE: Final = "; with `,ro` behind it the guest may only read it"
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
