"""What the interface raises where the kernel's would return an errno."""

from __future__ import annotations

import errno as _errno
import os


class KvmError(OSError):
    """A request that KVM refuses: `errno` as the kernel's ioctl returns it, `message` for people."""

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(errno, message or os.strerror(errno))
        self.message = message or os.strerror(errno)

    def __str__(self) -> str:
        return f"{self.message} ({_errno.errorcode.get(self.errno or 0, self.errno)})"
