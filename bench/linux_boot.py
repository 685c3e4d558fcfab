"""How long Debian's kernel takes to boot to a first process of a few lines, here and in QEMU, and how much
memory the process takes then besides the guest's.

Each boot is a command as users give it, whose start counts. The first one here also compiles regions, which
the later ones find on disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bench.in_turns import Pair, in_turns, table
from chronovisor.cli.busybox import initramfs
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.demo.linux.qemu import MACHINE, PROGRAM

RUNS = 3
"""How often each side boots each way. The medians are reported."""
MEMORY_MIB = 512
_INIT = """#!/bin/sh
echo "init: running"
busybox sleep 1
busybox poweroff -f
"""
"""The guest runs long enough behind its line for its process's memory to be read."""
_LINE = b"init: running\r\n"
_WAYS = {"with cryptomgr.notests": "console=hvc0 cryptomgr.notests", "as it comes": "console=hvc0"}
"""What the kernel checks at its start: nothing, or its ciphers. That is three quarters of a boot."""
SECONDS, PROCESSOR, BESIDES = "seconds", "processor time", "MiB besides the guest's"
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) .*?\nRss: +(\d+) kB", re.S)


def _besides(pid: int) -> float:
    """MiB of a process that are in memory and not in a mapping of the guest's size: those are the guest's."""
    sizes = [
        (int(end, 16) - int(begin, 16), int(resident))
        for begin, end, resident in _MAPPING.findall(Path(f"/proc/{pid}/smaps").read_text())
    ]
    return sum(resident for size, resident in sizes if size < MEMORY_MIB << 20) / 1024


def _timed(command: list[str]) -> dict[str, float]:
    """Run a command until its output has the line of the first process, then to its end."""
    begin, output = os.times(), b""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        while _LINE not in output and (more := os.read(process.stdout.fileno(), 1 << 16)):
            output += more
        if _LINE not in output:
            raise RuntimeError(f"the guest did not come to its first process: {output[-500:].decode()}")
        seconds, besides = os.times().elapsed - begin.elapsed, _besides(process.pid)
        process.communicate()
    end = os.times()
    spent = end.children_user + end.children_system - begin.children_user - begin.children_system
    return {SECONDS: seconds, PROCESSOR: spent, BESIDES: besides}


def measure(runs: int = RUNS) -> dict[str, list[Pair]]:
    """Each way to boot with its figures. FetchError if a package cannot be had."""
    packages = Packages()
    kernel = str(packages.vmlinux())
    found = {}
    with tempfile.NamedTemporaryFile() as initrd:
        initrd.write(initramfs(packages, _INIT))
        initrd.flush()
        for way, append in _WAYS.items():
            ours = [str(Path(sys.executable).with_name("chronovisor")), "run", kernel, "--append", append]
            ours += ["--memory", f"{MEMORY_MIB}M", "--initrd", initrd.name]
            theirs = [PROGRAM, "-M", MACHINE, "-cpu", "power9", "-m", f"{MEMORY_MIB}M", "-display", "none"]
            theirs += ["-vga", "none", "-nic", "none", "-serial", "stdio", "-no-reboot"]
            theirs += ["-kernel", kernel, "-initrd", initrd.name, "-append", append]
            found[way] = in_turns(lambda: _timed(ours), lambda: _timed(theirs), runs)  # noqa: B023
    return found


def show(console: Console) -> None:
    """Measure and print; say so if this machine has no access to Debian's packages."""
    try:
        found = measure()
    except FetchError as error:
        console.print(f"boots of Debian: not measured ({error})")
        return
    for way, pairs in found.items():
        title = f"A boot of Debian's kernel, {way}: medians of {RUNS} (ratio: ours over QEMU's)"
        console.print(table(title, [(pair, pair.ratio) for pair in pairs], 2))
