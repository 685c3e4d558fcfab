"""What a user does in a Debian guest, here and in QEMU: checksums, compression, sorting, searching, Python,
and the start of processes. The guest measures by its own clock.

Debian's packages bring the kernel and the programs. Each run is a boot of its own: the first one here also
compiles regions, which the later ones find on disk.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from math import prod
from pathlib import Path

from rich.console import Console

from bench.in_turns import Pair, in_turns, table
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.demo.linux.qemu import MACHINE, PROGRAM
from chronovisor.machine.cpio import Archive
from chronovisor.machine.host import Host

RUNS = 3
"""How often each side boots the guest. The medians are reported."""
_PACKAGES = (
    *(
        "busybox-static",
        "coreutils",
        "gzip",
        "grep",
        "libc6",
        "libacl1",
        "libattr1",
        "libgmp10",
        "libselinux1",
    ),
    *("libpcre2-8-0", "python3.11-minimal", "libpython3.11-minimal", "libexpat1", "zlib1g"),
)
_TIMEOUT = 300
_COMMAND_LINE = "console=hvc0 cryptomgr.notests quiet"
_LINE = re.compile(r"^work: (.+): ([0-9.]+)\r?$", re.MULTILINE)
PROCESSES = "fork and exec"
"""The start of processes: of its ratio another figure is asked than of the others'."""

_PYTHON = """
import time

def integers():
    total = 0
    for n in range(700_000):
        total = (total * 31 + n) & 0xffffffff
    return total

def floats():
    x = y = 0.25
    for _ in range(500_000):
        x, y = x * x - y * y + 0.3, 2 * x * y + 0.1
        if x * x + y * y > 4:
            x = y = 0.25
    return x

def dictionaries():
    words = [f"word{n * 7919 % 4001}" for n in range(60_000)]
    counts = {}
    for _ in range(15):
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    return len(counts)

def big_numbers():
    n = 3 ** 2000
    total = 0
    for k in range(7000):
        total ^= n * (n + k) % (10 ** 300 + k)
    return len(str(total))

for name, work in [("integers", integers), ("floats", floats), ("dictionaries", dictionaries),
                   ("big numbers", big_numbers)]:
    begin = time.monotonic()
    work()
    print(f"work: Python, {name}: {time.monotonic() - begin:.4f}", flush=True)
"""
_DATA = """
import sys

state, lines = 1, []
for n in range(60_000):
    words = []
    for _ in range(8):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        words.append(f"{state >> 40:x}")
    lines.append(" ".join(words))
sys.stdout.write("\\n".join(lines))
"""
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin
mkdir -p /proc /dev /tmp
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
now() {{ read up idle </proc/uptime; now=${{up%.*}}${{up#*.}}; }}
work() {{
    name=$1; shift
    now; begin=$now
    "$@" >/dev/null
    now; ticks=$((now - begin))
    printf 'work: %s: %d.%02d\\n' "$name" $((ticks / 100)) $((ticks % 100))
}}
processes() {{ n=0; while [ $n -lt 200 ]; do /bin/true; n=$((n + 1)); done; }}
# The kernel's last words may have no end.
echo
python3.11 /data.py >/tmp/data
cat /tmp/data /tmp/data /tmp/data /tmp/data /tmp/data /tmp/data >/tmp/much
work 'sha256sum' sha256sum /tmp/much
work 'gzip' gzip -c /tmp/data
work 'sort' sort /tmp/data
work 'grep' grep -c -E '(a[bc]+d|7f.*e{{2}}) [0-9]+$' /tmp/data
python3.11 /work.py
work '{PROCESSES}' processes
/bin/busybox poweroff -f
"""


def _initramfs(packages: Packages) -> bytes:
    out = io.BytesIO()
    archive = Archive(out)
    with tempfile.TemporaryDirectory(dir=packages.directory) as scratch:
        root = packages.unpack(_PACKAGES, Path(scratch))
        made: set[Path] = set()
        for path in sorted(root.glob("**/*")):
            if any(part in ("share", "locale", "gconv") for part in path.parts):
                continue
            name = str(path.relative_to(root))
            if path.is_symlink():
                archive.link(name, str(path.readlink()))
            elif path.is_dir():
                archive.directory(name)
                made.add(path)
            else:
                archive.file(name, path.read_bytes(), path.stat().st_mode & 0o777)
    for name, content in (("init", _INIT), ("data.py", _DATA), ("work.py", _PYTHON)):
        archive.file(name, content.encode(), 0o755)
    archive.directory("dev")
    archive.character_device("dev/console", 5, 1)
    archive.close()
    return out.getvalue()


def _found(console: str) -> dict[str, float]:
    found = {name: float(seconds) for name, seconds in _LINE.findall(console)}
    if PROCESSES not in found:
        raise RuntimeError(f"the guest did not come to its end: {console[-500:]}")
    return found


def here(kernel: Path, initramfs: bytes) -> dict[str, float]:
    """The guest on an embedded host with the real clock: name -> seconds."""
    with Host() as host:
        guest = host.boot(kernel, "512M", append=_COMMAND_LINE, initrd=initramfs)
        guest.run(_TIMEOUT)
        return _found(guest.console_text)


def in_qemu(kernel: Path, initramfs: bytes) -> dict[str, float]:
    """The same guest in QEMU (TCG); empty if QEMU is not installed."""
    if shutil.which(PROGRAM) is None:
        return {}
    with tempfile.NamedTemporaryFile() as file:
        file.write(initramfs)
        file.flush()
        command = [PROGRAM, "-M", MACHINE, "-cpu", "power9", "-m", "512M", "-display", "none"]
        command += ["-vga", "none", "-nic", "none", "-serial", "stdio"]
        command += ["-kernel", str(kernel), "-initrd", file.name, "-append", _COMMAND_LINE, "-no-reboot"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    return _found(done.stdout)


def measure(runs: int = RUNS) -> list[Pair]:
    """Seconds of all work, by the guest's clock, here and in QEMU. FetchError if a package cannot be had."""
    packages = Packages()
    kernel, initramfs = packages.vmlinux(), _initramfs(packages)
    return in_turns(lambda: here(kernel, initramfs), lambda: in_qemu(kernel, initramfs), runs)


def show(console: Console) -> None:
    """Measure and print; say so if this machine has no access to Debian's packages."""
    try:
        works = measure()
    except FetchError as error:
        console.print(f"work in a Debian guest: not measured ({error})")
        return
    title = f"Work in a Debian guest: seconds by its clock, medians of {RUNS} (ratio: QEMU's time over ours)"
    console.print(table(title, [(work, work.inverse) for work in works], 2))
    ratios = [work.inverse for work in works if work.name != PROCESSES and work.inverse is not None]
    if ratios:
        mean = prod(ratios) ** (1 / len(ratios))
        console.print(f"geometric mean of all but {PROCESSES}: {mean:.2f}")
