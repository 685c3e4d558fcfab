"""An initial file system for Linux guests that holds BusyBox, from Debian's package.

`python -m chronovisor.cli.busybox FILE` writes one with a shell on the console.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chronovisor.cli.clockcheck.guest_half import write
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.machine.cpio import Archive
from chronovisor.machine.errors import MachineError

SHELL: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo "Type poweroff -f to end the guest."
while :; do setsid -c sh -i </dev/hvc0 >/dev/hvc0 2>&1; done
"""
"""A first process that gives a shell on the console, in which Ctrl-C works."""


def initramfs(packages: Packages, init: str = SHELL, programs: Mapping[str, bytes] | None = None) -> bytes:
    """Return the archive: BusyBox, a shell script that is the first process, and further programs for /bin.

    FetchError if the package cannot be had.
    """
    with tempfile.TemporaryDirectory(dir=packages.directory) as scratch:
        root = packages.unpack(["busybox-static"], Path(scratch))
        busybox = next(root.glob("**/bin/busybox")).read_bytes()
    out = io.BytesIO()
    archive = Archive(out)
    for name in ("dev", "proc", "sys", "tmp"):
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox, 0o755)
    archive.link("bin/sh", "busybox")
    for name, program in (programs or {}).items():
        archive.file(f"bin/{name}", program, 0o755)
    archive.file("init", init.encode(), 0o755)
    archive.close()
    return out.getvalue()


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]), initramfs(Packages()))
    except IndexError:
        sys.exit("usage: busybox.py FILE")
    except (FetchError, MachineError) as error:
        sys.exit(f"busybox.py: {error}")
