"""How long `chronovisor run` takes to the guest's first words, and how much memory the process takes.

The first start on a machine has the handlers that the package brings and an empty cache of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LATER = 5
"""The number of starts after the first. The median is reported."""
GUEST_MIB = 16


@dataclass(frozen=True)
class StartUp:
    """Seconds from the command's start to the guest's first byte on the console; the process's peak MiB."""

    first_s: float
    first_mib: float
    later_s: float
    later_mib: float


def _start(cache: str) -> tuple[float, float]:
    command = [str(Path(sys.executable).with_name("chronovisor")), "run", "hello-le.elf"]
    # As an installed package has its bytecode.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [*command, "--memory", f"{GUEST_MIB}M", "--engine", "regions"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**environment, "CHRONOVISOR_CACHE": cache},
    )
    assert process.stdout is not None
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.monotonic() - begin
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if not first or process.returncode:
        raise RuntimeError(f"the guest said nothing or failed: status {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def measure() -> StartUp:
    """One first start, then some later ones."""
    with tempfile.TemporaryDirectory() as cache:
        first = _start(cache)
        later = [_start(cache) for _ in range(LATER)]
    seconds, sizes = zip(*later, strict=True)
    return StartUp(*first, statistics.median(seconds), statistics.median(sizes))
