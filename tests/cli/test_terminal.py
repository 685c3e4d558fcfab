"""What a command does when what it writes to goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

WRITER = """
import os, socket, sys, time
from chronovisor.cli.terminal import typing_into, write_stdout
from chronovisor.machine.console import Console
with typing_into(Console(write_stdout)):
    here, there = socket.socketpair()
    there.close()
    for _ in range(3):
        try:
            here.sendall(b"x")
        except BrokenPipeError:
            pass
        time.sleep(0.01)
    write_stdout(b"alive\\n")
    os.read(int(sys.argv[1]), 1)
    for _ in range(500):
        write_stdout(b"more\\n")
        time.sleep(0.01)
"""


def test_a_lost_connection_is_survived_and_a_lost_reader_is_not() -> None:
    go, tell = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(go)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=[go],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"alive\n"
    process.stdout.close()
    os.write(tell, b"x")
    assert process.wait(60) == 128 + signal.SIGPIPE
    os.close(go)
    os.close(tell)
