"""A process that compiles ends with the one that started it, in whatever state either of them is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from chronovisor.engine.native import compile_server as handlers
from chronovisor.engine.regions import compile_server as regions

PARENT = """
import os, sys, time
from chronovisor.engine.native.compile_service import _Child
child = _Child(sys.argv[1])
if not os.fork():
    # A copy that has all pipes: the child's input does not end with its parent.
    sys.stdin.read()
    os._exit(0)
print(child._process.pid, flush=True)
time.sleep(1000)
"""


def threads(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/task"))


@pytest.mark.parametrize("server", [handlers.__name__, regions.__name__])
@pytest.mark.parametrize(
    ("stopped", "at_once"),
    # One that is stopped before it has begun cannot end itself.
    [("", True), ("parent", True), ("", False), ("parent", False), ("server", False)],
)
def test_a_compiling_process_does_not_outlive_its_parent(server: str, stopped: str, at_once: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            of_child = os.pidfd_open(child)
            deadline = time.monotonic() + 60
            while not at_once and threads(child) < 2:
                # It reads its input.
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if stopped:
                os.kill({"parent": parent.pid, "server": child}[stopped], signal.SIGSTOP)
            assert not select.select([of_child], [], [], 0)[0]
            parent.kill()
            assert select.select([of_child], [], [], 60)[0], "it outlives its parent"
            os.close(of_child)
        finally:
            parent.kill()
