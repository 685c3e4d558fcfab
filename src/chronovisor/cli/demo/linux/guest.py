"""The first file system of a Debian guest that is busy and looks at its clocks: BusyBox, the checker of
clocks, `cyclictest`, and a load. All but the checker comes from Debian's packages.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.cli.clockcheck.guest_half import program
from chronovisor.cli.debian import Packages
from chronovisor.machine.cpio import Archive

PACKAGES: Final = ("busybox-static", "rt-tests", "libc6", "libnuma1")
COMMAND_LINE: Final = "console=hvc0 cryptomgr.notests quiet"
MEMORY: Final = "512M"
CPUS: Final = 2
INTERVAL_US: Final = 10_000
"""From one waking of `cyclictest` to the next, on each CPU."""
SAMPLES_MS: Final = 50
"""From one line of the checker's to the next."""
ASK: Final = "uptime\n"
"""What is typed on the console to have the guest print its uptime."""
REPORT: Final = "report\n"
"""What is typed to have it print what `cyclictest` saw."""
_LIB: Final = "lib/powerpc64le-linux-gnu"
_FILES: Final = (
    *("bin/busybox", "usr/bin/cyclictest"),
    *("lib64/ld64.so.2", f"{_LIB}/ld64.so.2", f"{_LIB}/libc.so.6", f"{_LIB}/librt.so.1"),
    f"{_LIB}/libpthread.so.0",
    *(f"usr/{_LIB}/libnuma.so.1", f"usr/{_LIB}/libnuma.so.1.0.0"),
)
_INIT: Final = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /dev /tmp
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs tmp /tmp
# A load that computes, starts processes, and goes through pipes and memory.
busy() {{ while :; do dd if=/dev/zero bs=64k count=8 2>/dev/null | sha256sum >/tmp/sum; done; }}
# Another, which reads the uptime all the time and says so if it leaps.
watch() {{
    last=0
    while read up idle </proc/uptime; do
        now=${{up%.*}}
        [ $now -ge $last ] && [ $now -le $((last + 100)) ] || echo "uptime: $up $idle"
        last=$now
    done
}}
busy & watch &
renice -n 19 $(jobs -p) >/dev/null
cyclictest --quiet --smp --priority=80 --interval={INTERVAL_US} --distance=0 >/tmp/cyclictest 2>&1 &
cyclictest=$!
clockcheck seconds=0 interval={SAMPLES_MS} &
renice -n -20 $! >/dev/null
[ -x /guest/start ] && /guest/start &
# The shell answers at once, however busy the guest is, and starts no process for it.
renice -n -20 $$ >/dev/null
uptime() {{ read up idle </proc/uptime; echo "uptime: $up $idle"; }}
report() {{ kill -USR1 $cyclictest; sleep 0.3; sed 's/^/cyclictest: /' /tmp/cyclictest; }}
while read line; do eval "$line"; done
"""
_THREAD: Final = re.compile(r"cyclictest: T: *\d+ .* C: *(\d+) Min: *(-?\d+) .* Max: *(-?\d+)")


def initramfs(packages: Packages, programs: Mapping[str, bytes] | None = None) -> bytes:
    """Return the archive. FetchError if a package cannot be had.

    `programs` go into the directory /guest; the one called `start`, if there is one, is started.
    """
    out = io.BytesIO()
    archive = Archive(out)
    for directory in ("dev", "proc", "sys", "tmp", "guest"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    with tempfile.TemporaryDirectory(dir=packages.directory) as scratch:
        root = packages.unpack(PACKAGES, Path(scratch))
        for name in _FILES:
            path = root / name
            if path.is_symlink():
                archive.link(name, str(path.readlink()))
            else:
                archive.file(name, path.read_bytes(), 0o755)
    archive.file("bin/clockcheck", program("ppc64le"), 0o755)
    archive.file("init", _INIT.encode(), 0o755)
    for name, content in (programs or {}).items():
        archive.file(f"guest/{name}", content, 0o755)
    archive.close()
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Wakings:
    """What a thread of `cyclictest` saw: how often it woke, and how late, in microseconds."""

    count: int
    least_us: int
    most_us: int


def wakings(console: str) -> list[Wakings]:
    """Return what `cyclictest` printed at the end, a thread each."""
    return [Wakings(*map(int, found.groups())) for found in _THREAD.finditer(console)]
