"""An initial RAM disk with BusyBox's shell, which runs what the command line says in `run="…"`."""

from __future__ import annotations

import io
from pathlib import Path

from real_kvm.debian import Packages

from chronovisor.machine.cpio import Archive

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
eval "$run"
exec setsid -c sh -i
"""
"""Linux hands options that it does not know to init, as variables of its environment."""


def initramfs(packages: Packages | None = None) -> bytes:
    """The archive, made from Debian's package of BusyBox."""
    packages = Packages() if packages is None else packages
    unpacked = packages.unpack(["busybox-static"], packages.directory / "busybox")
    program = next(path for path in (unpacked / "bin/busybox", unpacked / "usr/bin/busybox") if path.exists())
    return archive(program)


def archive(program: Path) -> bytes:
    """The archive with this static BusyBox in it."""
    out = io.BytesIO()
    entries = Archive(out)
    for directory in ("bin", "dev", "proc", "sys", "tmp"):
        entries.directory(directory)
    entries.character_device("dev/console", 5, 1)
    entries.file("bin/busybox", program.read_bytes(), 0o755)
    entries.file("init", INIT.encode(), 0o755)
    entries.close()
    return out.getvalue()
