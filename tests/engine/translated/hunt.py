"""Run the fuzzer in a process of its own: whatever native code does to that process is caught and reduced."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .progress import Progress

_TESTS = Path(__file__).parents[2]
_LONGEST = 160
"""No start executes more instructions than that."""


class Caught(AssertionError):
    """The fuzzer found something; it can be run again by the command in the message."""


def hunt(
    first: int,
    count: int,
    mutant: str | None = None,
    timeout: float = 1200,
    regions: bool = False,
    lines: bool = False,
) -> Counter[str]:
    """Run the worlds of `count` seeds; return what was compared. Caught if any differs, dies or hangs."""
    more = [*(["--mutant", mutant] if mutant else []), *(["--regions"] if regions else [])]
    more += ["--lines"] if lines else []
    with tempfile.TemporaryDirectory(prefix="fuzzer-") as folder:
        path = Path(folder, "progress")
        progress = Progress(path)
        ended, said = _run([str(first), str(count), *more, "--progress", str(path)], timeout)
        seed, start = progress.read()
    if ended == 0:
        found = json.loads(said)
        interrupts = found.pop("interrupts")
        return Counter(found) + Counter({f"interrupt {name}": n for name, n in interrupts.items()})
    if ended == 1 and said:
        raise Caught(f"{said}\n{_command([*said.split(',')[0].split()[1:2], *more])}")
    one = [str(seed), "--start", str(start), *more]
    where = "" if ended is None else _reduced(one)
    raise Caught(f"seed {seed}, start {start}: {_cause(ended)}{where}\n{_command(one)}")


def _reduced(one: Sequence[str]) -> str:
    """The fewest instructions after which the process still dies, if the start alone makes it die."""

    def dies(limit: int) -> bool:
        return _run([*one, "--limit", str(limit)], 60)[0] not in (0, 1)

    high = 1
    while not dies(high):
        if high > _LONGEST:
            return "; it does not die alone"
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if dies(middle) else (middle, high)
    return f" at instruction {high}"


def _run(arguments: Sequence[str], timeout: float) -> tuple[int | None, str]:
    """The process's exit status, None if it hangs, and what it printed."""
    command = [sys.executable, "-m", "engine.translated", *arguments]
    try:
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            command, cwd=_TESTS, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return None, ""
    if done.returncode == 1 and not done.stdout:
        raise RuntimeError(f"the fuzzer itself failed: {done.stderr[-2000:]}")
    return done.returncode, done.stdout.strip()


def _cause(ended: int | None) -> str:
    if ended is None:
        return "it hangs"
    return f"died of {signal.Signals(-ended).name}" if ended < 0 else f"ended with {ended}"


def _command(arguments: Sequence[str]) -> str:
    return f"again, from the folder tests: python -m engine.translated {' '.join(arguments)}"
