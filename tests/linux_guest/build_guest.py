"""A Debian guest with a compiler on its disk, which builds zlib and runs zlib's own tests."""

from __future__ import annotations

import bz2
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.cli.debian import Packages
from chronovisor.cli.debian_disk import COMMAND_LINE, IMAGE, INITRD, make
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from chronovisor.machine.vio.attachments import Attachments

BUILD: Final = Path("build")
"""Where disks are kept between runs, as `make debian-disk` has it."""
MEMORY: Final = "1G"
_HOUR: Final = 3600
_PREPARED: Final = "debian-gcc.img"
_PREPARE: Final = """#!/bin/sh
exec >/dev/hvc0 2>&1
export DEBIAN_FRONTEND=noninteractive
n=0
until apt-get -q=2 -o APT::Update::Error-Mode=any update || [ $n -ge 30 ]; do sleep 1; n=$((n + 1)); done
apt-get -q=2 install -y --no-install-recommends gcc libc6-dev make >/dev/null && echo "prepared"
"""
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
        """Read it from all that the guest printed."""
        times = _TIMES.search(console)
        assert times is not None, console[-3000:]
        for line in _PASSED:
            assert line in console, console[-3000:]
        found = {name: value for value, name in _SUM.findall(console)}
        return cls(found, int(times[1]) / 100, int(times[2]) / 100)


def running(script: str) -> str:
    """Return the command line of a guest that runs a script of its disk, and powers off."""
    return f'{COMMAND_LINE} quiet systemd.run="/bin/sh /root/{script}"'


def put(disk: Path, content: bytes, name: str) -> None:
    """Write a file into the disk's /root."""
    source = disk.with_name("put")
    source.write_bytes(content)
    done = subprocess.run(
        ["debugfs", "-w", "-R", f"write {source} /root/{name}", str(disk)], capture_output=True, check=True
    )
    assert b"Allocated inode" in done.stdout
    source.unlink()


def made() -> Path:
    """Return the disk of `make debian-disk`, made if it is not there."""
    if not (BUILD / IMAGE).exists():
        make(BUILD, Packages())
    return BUILD / IMAGE


def prepared(packages: Packages) -> tuple[Path, Path]:
    """Return a disk with a compiler, the script and zlib's source on it, and what a guest boots it by."""
    disk, initrd = BUILD / _PREPARED, BUILD / INITRD
    if disk.exists():
        return disk, initrd
    partial = copied(made(), disk.with_suffix(".partial"))
    put(partial, _PREPARE.encode(), "prepare")
    put(partial, _WORK.encode(), "work")
    put(partial, bz2.decompress(packages.source("zlib").read_bytes()), "zlib.tar")
    with Host() as host:
        host.attachments = Attachments.parse([str(partial)], "passt")
        guest = host.boot(packages.vmlinux(), MEMORY, append=running("prepare"), initrd=initrd.read_bytes())
        assert guest.run(_HOUR).reason is EndReason.POWER_OFF
        assert "prepared" in guest.console_text, guest.console_text[-3000:]
    return partial.rename(disk), initrd


def copied(disk: Path, to: Path) -> Path:
    """Copy a disk; the copy takes what is used."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(to)], check=True)
    return to


def in_qemu(kernel: Path, initrd: Path, disk: Path) -> str:
    """Do the work in QEMU (TCG) with its own virtual SCSI; return what the guest printed."""
    qemu = shutil.which("qemu-system-ppc64")
    assert qemu is not None
    command = [qemu, "-M", "pseries", "-cpu", "power9", "-m", MEMORY, "-display", "none", "-vga", "none"]
    command += ["-nic", "none", "-serial", "stdio", "-no-reboot"]
    command += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", running("work")]
    command += ["-device", "spapr-vscsi,id=scsi", "-device", "scsi-hd,drive=disk,bus=scsi.0"]
    command += ["-drive", f"if=none,id=disk,format=raw,file={disk}"]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_HOUR, check=True
    )
    return done.stdout
