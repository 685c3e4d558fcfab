"""The kernel's own tests of timers, from Debian's source of the kernel, built here for the guest."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from chronovisor.cli.debian import Packages

SOURCE: Final = "linux-source-6.1"
COMPILER: Final = "powerpc64le-linux-gnu-gcc"
LATENCY_TESTS: Final = frozenset({"nsleep-lat", "set-timer-lat"})
"""Tests that fail if a timer is 40 ms late."""
_RUNS: Final = {
    "inconsistency-check": "-t 1",
    "threadtest": "-t 5",
    "nanosleep": "",
    "nsleep-lat": "",
    "set-timer-lat": "",
}
"""Each test with its arguments, in the order in which they run, again and again."""
NAMES: Final = frozenset(_RUNS)
"""All of them."""
_START: Final = "\n".join(
    (
        "#!/bin/busybox sh",
        "cd /guest",
        'run() { ./"$@" >/tmp/selftest 2>&1; echo "selftest: $1 $?"; }',
        "while :; do",
        *(f"    run {name} {arguments}".rstrip() for name, arguments in _RUNS.items()),
        "done",
        "",
    )
)
_RESULT: Final = re.compile(r"selftest: (\S+) (\d+)")


def selftests(packages: Packages) -> dict[str, bytes]:
    """Return the programs, and what starts them, for a guest's directory; built once and kept."""
    built = packages.directory / "selftests"
    if not built.exists():
        if shutil.which(COMPILER) is None:
            pytest.skip(f"needs {COMPILER}")
        with tempfile.TemporaryDirectory(dir=packages.directory) as scratch:
            into = Path(scratch) / "built"
            into.mkdir()
            tests = _sources(packages, Path(scratch))
            for name in _RUNS:
                _build(tests / f"{name}.c", into / name)
            into.rename(built)
    return {"start": _START.encode(), **{name: (built / name).read_bytes() for name in _RUNS}}


def results(console: str) -> list[tuple[str, int]]:
    """Return each test that ended, with its status."""
    return [(name, int(status)) for name, status in _RESULT.findall(console)]


def _sources(packages: Packages, scratch: Path) -> Path:
    root = packages.unpack([SOURCE], scratch / "package")
    archive = next(root.glob("usr/src/linux-source-*.tar.xz"))
    wanted = ("*/tools/testing/selftests/kselftest.h", "*/tools/testing/selftests/timers/*")
    subprocess.run(
        ["tar", "--extract", "--file", archive, "--directory", scratch, "--wildcards", *wanted],
        check=True,
        timeout=300,
    )
    return next(scratch.glob("linux-source-*/tools/testing/selftests/timers"))


def _build(source: Path, program: Path) -> None:
    command = [COMPILER, "-O2", "-w", "-static", "-pthread", "-D_GNU_SOURCE", "-o", program, source, "-lrt"]
    subprocess.run(command, check=True, timeout=100)
