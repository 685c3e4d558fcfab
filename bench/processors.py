"""The speed-up of two busy processes over one on this machine: the most that two vCPUs could reach.

Who shares the machine with others sees by it what the others left.
"""

from __future__ import annotations

import subprocess
import sys
import time

_SPIN = "n = 0\nfor i in range(10_000_000): n += i"


def _seconds(processes: int) -> float:
    begin = time.monotonic()
    running = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(processes)]
    for process in running:
        process.wait()
    return time.monotonic() - begin


def scaling() -> float:
    """Return the work of two processes at once, divided by that of one in the same time."""
    return 2 * _seconds(1) / _seconds(2)
