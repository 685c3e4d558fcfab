"""Processes of the commands on one machine: what runs, what it says, and the ways between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.migration.address import parse_address

sys.path.insert(0, str(Path(__file__).parents[1] / "migration"))
from faulty_way import Fault, FaultyWay

COMMAND = [sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())"]
ORIGIN = 987_654_321_987
LIMIT = ("--time-limit", "60")
NO_GUEST_FOR_EVER = ("--timeout", "300")
"""What hangs ends some time. A busy machine may take a minute for a test of seconds."""


def ticks() -> int:
    """The machine's clock, as every host here counts it."""
    return time.monotonic_ns() * 512 // 1000


def keeps_its_timers(report: str) -> bool:
    """Whether a guest of the demonstration has lost no timer.

    If the machine stops it for 4.2 seconds between its look at the timebase and its write to DEC, what it
    writes has too few bits for what it means.
    """
    step = re.search(r" largest_step=(\d+) ", report)
    assert step is not None, report
    return " lost=0 " in report or int(step[1]) >= 1 << 31


class Process:
    """A command that goes on, and its guest's console."""

    def __init__(self, *arguments: str, of_a_guest: bool = True) -> None:
        options = ("--engine", "concrete", *NO_GUEST_FOR_EVER) if of_a_guest else ()
        self._process = subprocess.Popen(
            [*COMMAND, *arguments, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self._process.pid
        self.errors = ""

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def has_read(self) -> bool:
        """Whether the process has read all that was typed."""
        assert self._process.stdin is not None
        waiting = fcntl.ioctl(self._process.stdin, termios.FIONREAD, bytes(4))
        return not any(waiting)

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode()

    def error_line(self) -> str:
        assert self._process.stderr is not None
        self.errors += (line := self._process.stderr.readline().decode())
        return line

    def timebase(self) -> tuple[int, int, int]:
        """What the guest's timebase reads, and the machine's clock before and after."""
        before = ticks()
        self.type("t")
        return before, int(self.line(), 16), ticks()

    def ends(self) -> int:
        _, errors = self._process.communicate(timeout=60)
        self.errors += errors.decode()
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        with contextlib.suppress(ValueError):
            self._process.communicate()


class Machine:
    """A machine with a run directory of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.processes: list[Process] = []
        self.ways: list[FaultyWay] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.detached: list[int] = []

    def run(self, name: str, *options: str) -> Process:
        self.processes.append(
            process := Process("run", "demo-le.elf", "--memory", "2M", "--name", name, *options)
        )
        assert "watching" in process.line()
        return process

    def run_detached(self, name: str, *options: str) -> Any:
        """A guest in the background, and what the command told of it."""
        return self.detach("run", "demo-le.elf", "--memory", "2M", "--name", name, *options)

    def detach(self, *arguments: str) -> Any:
        """Run a command in the background."""
        options = ("--detach", "--json", "--engine", "concrete", *NO_GUEST_FOR_EVER)
        done = subprocess.run([*COMMAND, *arguments, *options], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (ExitStatus.OK, "")
        told = json.loads(done.stdout)
        self.detached.append(told["pid"])
        return told

    def start_command(self, *arguments: str) -> Process:
        """A command beside the guests', with its input and output."""
        self.processes.append(process := Process(*arguments, of_a_guest=False))
        return process

    def start_waiting(self, name: str, *options: str) -> Process:
        """A guest that does not run before somebody says so, and then ends by itself."""
        self.processes.append(process := Process("run", "hello-le.elf", "--name", name, *options))
        return process

    def receive(
        self, name: str, *options: str, at: str = "tcp:127.0.0.1:0", once: bool = True
    ) -> tuple[Process, str]:
        """A process that waits for guests, for one of them unless `once` is False; and where it waits."""
        count = ("--once",) if once else ()
        self.processes.append(process := Process("receive", at, "--name", name, *LIMIT, *count, *options))
        told = re.fullmatch(rf"chronovisor: {name} waits at (\S+)\n", process.error_line())
        assert told is not None, process.errors
        return process, told[1]

    def way(self, to: str, fault: Fault, open_again: bool = True) -> FaultyWay:
        self.ways.append(way := FaultyWay(parse_address(to), fault))
        way.open_again = open_again
        return way

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command that answers later, on a process of its own."""
        self.started.append(
            process := subprocess.Popen(
                [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return process

    def does(self, *arguments: str) -> tuple[int, str, str]:
        """A command that answers: its status, what it printed, and what it said on stderr."""
        if arguments[0] == "migrate" and len(arguments) > 2 and not arguments[2].startswith("--"):
            # The source waits as long as the destination, unless the test says how long.
            arguments = (*arguments[:3], *LIMIT, *arguments[3:])
        status = main(arguments)
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    def asks(self, *arguments: str) -> Any:
        status, out, err = self.does(*arguments, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)

    def fails(self, status: ExitStatus, words: str, *arguments: str) -> None:
        found, out, err = self.does(*arguments)
        assert (found, out) == (status, "")
        assert err.startswith("chronovisor: ")
        assert err.count("\n") == 1
        assert words in err

    def state(self, name: str) -> str:
        return str(next(guest["state"] for guest in self.asks("ps") if guest["name"] == name))
