"""gcc and make build zlib in a Debian guest and run zlib's own tests, here and in QEMU.

The guest needs no network: the compiler is on its disk from the beginning, and zlib's source is put there.
Packages and source come from the mirror that this machine's apt uses. The guest measures by its own clock;
the processor seconds are those of all processes on the host, those that compile regions among them.
"""

from __future__ import annotations

import bz2
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.in_turns import Pair, in_turns, table
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.debian_disk import COMMAND_LINE, IMAGE, INITRD, make
from chronovisor.cli.demo.linux.qemu import MACHINE, PROGRAM

RUNS: Final = 1
"""How often each side does the work."""
MEMORY: Final = "1G"
_COMPILER: Final = ("gcc", "libc6-dev", "make")
_DISK: Final = Path("build/compiler")
"""Where the disk with the compiler is kept between runs."""
_HOUR: Final = 3600
_SUMS: Final = 5
_WORK: Final = """#!/bin/sh
exec >/dev/hvc0 2>&1
now() { read up idle </proc/uptime; echo ${up%.*}${up#*.}; }
mkdir /root/build
cd /root/build
tar -xf /root/zlib.tar --strip-components=1
echo "building"
begin=$(now)
./configure >/dev/null && make >/dev/null && built=$(now) && make test && tested=$(now)
echo "built in $((built - begin)), tested in $((tested - built)) hundredths of a second"
sha256sum libz.a libz.so.* minigzip example | sed 's/^/sum: /'
"""
_SUM: Final = re.compile(r"^sum: ([0-9a-f]{64}) +(\S+)\r?$", re.MULTILINE)
_TIMES: Final = re.compile(r"built in (\d+), tested in (\d+)")
_PASSED: Final = ("*** zlib test OK ***", "*** zlib shared test OK ***", "*** zlib 64-bit test OK ***")


@dataclass(frozen=True)
class Built:
    """What a guest said of its work."""

    sums: dict[str, str]
    """SHA-256 by names of files."""
    build_s: float
    test_s: float
    """Seconds by the guest's clock."""

    @classmethod
    def of(cls, console: str) -> Built:
        """Read it from all that the guest printed; RuntimeError if the work was not done."""
        times = _TIMES.search(console)
        found = {name: value for value, name in _SUM.findall(console)}
        if times is None or len(found) != _SUMS or not all(line in console for line in _PASSED):
            raise RuntimeError(f"the guest did not come to its end: {console[-3000:]}")
        return cls(found, int(times[1]) / 100, int(times[2]) / 100)


@dataclass(frozen=True)
class Work:
    """What the guest boots from, and what it works on."""

    kernel: Path
    initrd: Path
    disk: Path
    """With the compiler. Guests have copies of it."""
    source: Path
    """zlib's archive."""
    append = f'{COMMAND_LINE} quiet systemd.run="/bin/sh /root/work"'
    """The command line of a guest that does the work and powers off."""

    @classmethod
    def prepared(cls) -> Work:
        """Make the disk if it is not there. FetchError if a package cannot be had."""
        packages = Packages()
        if not (_DISK / IMAGE).exists():
            make(_DISK, packages, _COMPILER)
        return cls(packages.vmlinux(), _DISK / INITRD, _DISK / IMAGE, packages.source("zlib"))

    def copied(self, to: Path) -> Path:
        """Make a disk for one guest, with the work on it. The copy takes what is used."""
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(self.disk), str(to)], check=True)
        _put(to, _WORK.encode(), "work")
        _put(to, bz2.decompress(self.source.read_bytes()), "zlib.tar")
        return to

    def run(self, disk: Path) -> list[str]:
        """Return what `chronovisor run` is told."""
        boot = ["run", "--kernel", str(self.kernel), "--initrd", str(self.initrd), "--memory", MEMORY]
        return [*boot, "--append", self.append, "--disk", str(disk)]

    def in_qemu(self, disk: Path) -> str:
        """Do the work in QEMU (TCG) with its own virtual SCSI; return what the guest printed."""
        command = [PROGRAM, "-M", MACHINE, "-cpu", "power9", "-m", MEMORY, "-display", "none", "-vga", "none"]
        command += ["-nic", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(self.kernel)]
        command += ["-initrd", str(self.initrd), "-append", self.append]
        command += ["-device", "spapr-vscsi,id=scsi", "-device", "scsi-hd,drive=disk,bus=scsi.0"]
        return _console(*command, "-drive", f"if=none,id=disk,format=raw,file={disk}")


def processor_seconds() -> float:
    """What this process's children that have ended took, and theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _put(disk: Path, content: bytes, name: str) -> None:
    """Write a file into the disk's /root."""
    with tempfile.NamedTemporaryFile() as source:
        source.write(content)
        source.flush()
        command = ["debugfs", "-w", "-R", f"write {source.name} /root/{name}", str(disk)]
        done = subprocess.run(command, capture_output=True, check=True)
    if b"Allocated inode" not in done.stdout:
        raise RuntimeError(f"{disk}: debugfs wrote no file: {done.stderr.decode()}")


def _console(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_HOUR, check=True
    )
    return done.stdout


def _figures(console: str, begin: float) -> dict[str, float]:
    built = Built.of(console)
    return {
        "built": built.build_s,
        "tested": built.test_s,
        "processor time of it all": processor_seconds() - begin,
    }


def measure(runs: int = RUNS) -> list[Pair]:
    """Seconds, here and in QEMU, after the guest has done the work here once. FetchError as `prepared`."""
    work = Work.prepared()
    with tempfile.TemporaryDirectory(dir=_DISK) as scratch:
        disk = Path(scratch) / "disk"

        def here() -> dict[str, float]:
            command = work.run(work.copied(disk))
            begin = processor_seconds()
            return _figures(_console(sys.executable, "-m", "chronovisor", *command), begin)

        def in_qemu() -> dict[str, float]:
            if shutil.which(PROGRAM) is None:
                return {}
            work.copied(disk)
            begin = processor_seconds()
            return _figures(work.in_qemu(disk), begin)

        # This also compiles regions, which the later ones find on the disk.
        here()
        return in_turns(here, in_qemu, runs)


def show(console: Console) -> None:
    """Measure and print; say so if this machine cannot make the disk."""
    try:
        found = measure()
    except FetchError as error:
        console.print(f"a build in a Debian guest: not measured ({error})")
        return
    title = "gcc builds zlib in a Debian guest, seconds (ratio: QEMU's time over ours)"
    console.print(table(title, [(one, one.inverse) for one in found], 1))
