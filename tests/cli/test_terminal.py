"""What a command does when what it writes to goes away."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
import time

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


def test_no_more_is_read_than_the_guest_has_room_for() -> None:
    code = (
        "import os, sys, time\nfrom chronovisor.cli.terminal import typing_into\n"
        "from chronovisor.machine.console import TYPED_BYTES, Console\n"
        "console = Console()\n"
        "with typing_into(console):\n"
        "    while len(console.typed) < TYPED_BYTES: time.sleep(0.01)\n"
        "    time.sleep(0.5)\n"
        "    print(len(console.typed))\n"
        "    read = len(console.read(1000))\n"
        "    while len(console.typed) < TYPED_BYTES: time.sleep(0.01)\n"
        "    print(read, len(console.typed))\n"
    )
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run([sys.executable, "-c", code], stdin=endless, capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"65536\n1000 65536\n", b"")


STOPPED = """
import os, sys, time
from chronovisor.cli.terminal import typing_into
from chronovisor.machine.console import Console
console = Console()
with typing_into(console):
    os.write(1, b"typing\\n")
    while b"q" not in console.typed:
        time.sleep(0.01)
"""


SHELL_OF_ONE_JOB = """
import fcntl, os, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], process_group=0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.tcsetpgrp(0, job.pid)
for _ in range(2):
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    told = "stopped" if os.WIFSTOPPED(status) else f"ended {os.waitstatus_to_exitcode(status)}"
    os.tcsetpgrp(0, os.getpgrp())
    os.write(1, f"{told} {termios.tcgetattr(0)[3] & termios.ICANON != 0}\\n".encode())
    if told == "stopped":
        os.tcsetpgrp(0, job.pid)
        os.kill(job.pid, signal.SIGCONT)
"""


def test_a_stopped_process_gives_the_terminal_back() -> None:
    """Ctrl-Z, and the shell's fg: the terminal has its own settings between the two."""
    terminal, end = pty.openpty()
    # A program of its own: the tests' process has threads, so a fork of it could wait for a lock for ever.
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL_OF_ONE_JOB, STOPPED],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
    )
    os.close(end)
    told = b""

    def until(text: bytes) -> None:
        nonlocal told
        while text not in told:
            told += os.read(terminal, 1000)

    until(b"typing")
    assert not termios.tcgetattr(terminal)[3] & termios.ICANON
    os.write(terminal, b"\x1a")
    until(b"stopped True")
    deadline = time.monotonic() + 60
    while termios.tcgetattr(terminal)[3] & termios.ICANON:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.write(terminal, b"q")
    until(b"ended 0 True")
    assert shell.wait(60) == 0
    os.close(terminal)
