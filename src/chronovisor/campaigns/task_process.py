"""A process of its own for a task, which ends with the worker that started it.

``python -m chronovisor.campaigns.task_process PARENT MODULE ARGUMENT…`` runs a module as ``python -m`` does.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

from chronovisor.parent_process import end_with


def run(
    module: str, *arguments: str, limit: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module in a process for at most `limit` seconds, with modules of the folder `cwd` beside ours.

    The thread that calls this has to stay until the process has ended.

    Raises `subprocess.TimeoutExpired` if the process takes longer. It is killed then.
    """
    command = [sys.executable, "-m", __name__, str(os.getpid()), module, *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=limit, check=False
    )


def _main() -> None:
    parent, module, *arguments = sys.argv[1:]
    end_with(int(parent))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
