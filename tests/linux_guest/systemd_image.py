"""A whole Debian for 64-bit Power in an initial file system, with systemd as its first process.

mmdebstrap unpacks the packages and has their own scripts configure them; qemu-user runs these scripts. The
image is made once and kept with the packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from chronovisor.cli.debian import FetchError, Packages

TOOLS: Final = ("mmdebstrap", "bsdtar", "qemu-ppc64le-static", "unshare")
"""From Debian's mmdebstrap, libarchive-tools, qemu-user-static and util-linux."""
_INCLUDED: Final = "systemd-sysv,dbus,udev,python3"
_LEFT_OUT: Final = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*")
_INTERPRETERS: Final = "/proc/sys/fs/binfmt_misc"
_QEMU_USER: Final = "/usr/lib/binfmt.d/qemu-ppc64le.conf"
_MINUTES: Final = 15
# The new user namespace has its own list of interpreters (Linux 6.7), so nothing changes on this machine. An
# older kernel has one list, which may hold an interpreter for Power already.
_SCRIPT: Final = f"""
read -r _
mount -t binfmt_misc binfmt_misc {_INTERPRETERS} && cat {_QEMU_USER} > {_INTERPRETERS}/register
set -e -o pipefail
mmdebstrap "$@" | bsdtar --format newc -cf "$ARCHIVE" @-
"""


def systemd_image(packages: Packages) -> Path:
    """Return the archive; it is made first if it is not there yet. Skip if this machine cannot make it."""
    uri, suite = packages.mirror()
    command = [
        *("--mode=root", "--architectures=ppc64el", "--variant=minbase", f"--include={_INCLUDED}"),
        *(f"--dpkgopt=path-exclude=/{path}" for path in _LEFT_OUT),
        *(suite, "-", f"deb {uri} {suite} main"),
    ]
    recipe = hashlib.sha256(repr(command).encode()).hexdigest()[:12]
    image = packages.directory / f"systemd-{recipe}.cpio"
    with packages.locked():
        if not image.exists():
            partial = image.with_suffix(".partial")
            _make(command, partial)
            partial.rename(image)
    return image


def _make(command: list[str], archive: Path) -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: they make the image")
    if os.geteuid():
        pytest.skip("needs root: the image's files belong to several users")
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "bash", "-c", _SCRIPT, "bash", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ARCHIVE": str(archive)},
    )
    try:
        _map_users(process.pid)
        _, said = process.communicate("\n", timeout=60 * _MINUTES)
    except BaseException:
        process.kill()
        raise
    if process.returncode:
        raise FetchError(f"mmdebstrap failed: {said.strip()[-1000:]}")


def _map_users(pid: int) -> None:
    """Give a process that waits in its new user namespace the users that this machine has."""
    own = os.readlink("/proc/self/ns/user")
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/ns/user") == own:
        if time.monotonic() > deadline:
            raise FetchError("unshare made no user namespace")
        time.sleep(0.01)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{kind}").write_text("0 0 65536\n")
