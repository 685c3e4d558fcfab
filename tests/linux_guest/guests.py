"""What the tests of Linux guests boot: Debian's kernels, and file systems to begin with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from chronovisor.cli.busybox import initramfs
from chronovisor.cli.debian import FLAVOUR, Packages
from chronovisor.timebase.clock import HostClock
from chronovisor.timebase.types import HostTime

BOOT_SECONDS: Final = 300
"""More than a boot takes on a machine that does much else: the run ends by itself long before."""

COMPLAINTS: Final = re.compile(
    "Oops|BUG|Call Trace|WARNING: (?:CPU|Ignoring)|Unable to handle|illegal|stalls? on|soft lockup"
    "|failed self"
)
"""What a guest prints if something went wrong in it."""
PATIENT: Final = "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120"
"""Has a kernel complain of a CPU that does not go on for two minutes, and not for some twenty seconds: a busy
machine may stop it for that long.
"""


@dataclass(frozen=True)
class Kernel:
    """One of Debian's kernels for 64-bit Power, and the size of its pages."""

    suite: str | None
    flavour: str
    page_size: int

    def vmlinux(self) -> Path:
        """Return the kernel's file; the test is skipped on a machine without Debian's tools."""
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            pytest.skip("needs Debian's apt and dpkg: they bring the kernel")
        return Packages(suite=self.suite).vmlinux(self.flavour)


THREE_LINES: Final = """#!/bin/sh
echo "init: running"
busybox poweroff -f
"""
"""The shortest first process: a script for `busybox`."""


OWN: Final = Kernel(None, FLAVOUR, 65536)
"""The kernel of the suite that this machine uses: 6.1 in Debian 12."""
TRIXIE: Final = Kernel("trixie", FLAVOUR, 4096)
TRIXIE_64K: Final = Kernel("trixie", f"{FLAVOUR}-64k", 65536)
"""Linux 6.12 of Debian 13, in its two flavours."""


def busybox(init: str, programs: Mapping[str, bytes] | None = None) -> bytes:
    """Return an initial file system: BusyBox, a shell script that is its first process, and /bin's others."""
    return initramfs(Packages(), init, programs)


class Lines:
    """Takes what a guest prints and keeps its lines, with the host's time at which each ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.times: list[int] = []
        self._now: Callable[[], HostTime] | None = None
        self._rest = b""

    def watch(self, clock: HostClock) -> None:
        """Take times from this clock from now on."""
        self._now = clock.now

    def end(self) -> None:
        """Take what was printed last for a line, whether it ended or not."""
        if self._rest:
            self(b"\n")

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.lines.append(line.rstrip(b"\r").decode(errors="replace"))
            if self._now is not None:
                self.times.append(self._now().value)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
