"""A dump of a Linux guest, as `crash` reads it: Debian 13's, for Power, which qemu-user runs here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from chronovisor.cli.debian import FetchError, Packages
from chronovisor.kvm.registers import read_register
from chronovisor.machine import Console, Host
from chronovisor.machine.debugger.core_dump import write_core
from chronovisor.timebase.types import FREQUENCY, Ticks
from linux_guest.guests import OWN, busybox

QEMU: Final = "qemu-ppc64le-static"
INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
echo what was said to the kernel >/dev/kmsg
sleep 100000 &
echo "sleeps: $!"
# Whatever ends soon has ended then, and the other one sleeps.
sleep 3
cd /proc
echo "pids:" [0-9]* :end
sleep 100000
"""
CRASH: Final = (
    *("crash", "libc6-ppc64el-cross", "libgcc-s1", "liblzo2-2", "libncursesw6", "libsnappy1v5"),
    *("libstdc++6", "libtinfo6", "libzstd1"),
)
"""Debian 13's. Debian 12's is too old for its own kernel: it finds no task of it but the idle ones."""
ZLIB: Final = "zlib1g"
COMMANDS: Final = "sys\nps\nbt -a\nbt {sleeps}\nlog\nkmem -i\nfiles 1\nquit\n"
WITHIN: Final = 40 * FREQUENCY


def crash(into: Path) -> list[str]:
    """The command line that `crash` begins with."""
    if shutil.which(QEMU) is None:
        pytest.skip(f"needs Debian's {QEMU}, which runs crash for Power")
    try:
        Packages(suite="trixie").unpack(CRASH, into)
        Packages().unpack([ZLIB], into)
    except FetchError as error:
        pytest.skip(f"crash cannot be had: {error}")
    libraries = sorted({str(path.parent) for path in into.glob("**/*.so.*") if "gconv" not in str(path)})
    # That of Debian 13 is for cross compilers, so it is not where programs look for it.
    loader = next(into.glob("usr/powerpc64le-linux-gnu/lib/ld64.so.*"))
    return [QEMU, str(loader), "--library-path", ":".join(libraries), str(next(into.glob("**/bin/crash")))]


def debug_information(into: Path) -> Path:
    """The kernel with its debug information."""
    package = f"{Packages().kernel().name}-dbg"
    try:
        file = Packages().fetch([package])[package]
    except FetchError as error:
        pytest.skip(f"the kernel's debug information cannot be had: {error}")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as contents:
        unpacking = ["tar", "-x", "-C", into, "--wildcards", "*/boot/vmlinux-*"]
        subprocess.run(unpacking, stdin=contents.stdout, check=True)
    return next(path for path in into.glob("**/boot/vmlinux-*") if not path.is_symlink())


@pytest.mark.soak
def test_crash_reads_a_dump(tmp_path: Path) -> None:
    kernel = OWN.vmlinux()
    program, symbols = crash(tmp_path / "crash"), debug_information(tmp_path)
    with Host(clock="virtual", ticks_per_instruction=2, cores=2) as host:
        console = Console()
        guest = host.boot(
            kernel, "512M", smp=2, append="console=hvc0 quiet", console=console, initrd=busybox(INIT)
        )
        assert guest.run_until(":end", Ticks(WITHIN)), console.text
        with open(tmp_path / "core", "wb") as file:
            write_core(guest, file)
        places = [(read_register(vcpu, "PC"), read_register(vcpu, "R1")) for vcpu in guest.vcpus]
    told = console.text
    sleeps = re.findall(r"sleeps: (\d+)", told)[0]
    pids = {int(pid) for pid in re.findall(r"pids: (.*) :end", told)[0].split()}
    (tmp_path / "commands").write_text(COMMANDS.format(sleeps=sleeps))
    done = subprocess.run(
        [*program, "-s", "-i", tmp_path / "commands", symbols, tmp_path / "core"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=1500,
    )
    said = done.stdout
    assert re.search(r"CPUS: 2\n", said), said
    assert f"RELEASE: {kernel.name.removeprefix('vmlinux-')}\n" in said
    assert re.search(r"MEMORY: 512 MB\n", said)
    # Every task that the guest itself listed, and the idle one of each vCPU.
    found = {int(pid) for pid in re.findall(r"^[> ] +(\d+) +\d+ +\d  c0[0-9a-f]{14}  ", said, re.MULTILINE)}
    assert pids <= found
    assert len(pids) > 30
    assert said.count("[swapper/") == 2
    for address, stack in places:
        assert f"NIP: {address:016x}" in said
        assert f"R1:  {stack:016x}" in said
    for expected in ("do_nanosleep at", "clock_nanosleep at", "what was said to the kernel", "/dev/console"):
        assert expected in said, (expected, said)
