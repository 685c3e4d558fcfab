"""The keys of a terminal on which `chronovisor run` runs a guest, and the terminal's settings afterwards."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.cli.status import ExitStatus

sys.path.insert(0, str(Path(__file__).parents[1] / "machine"))
from elf_files import program

ECHO = program("""
wait: li r3,0x54; li r4,0
    sc 1
    cmpdi r4,0
    beq wait
    mr r7,r6; mr r6,r5; mr r5,r4
    li r3,0x58; li r4,0
    sc 1
    b wait
""")
"""Prints what is typed."""
NEVER_READS = program("""
    li r3,0x58; li r4,0; li r5,1; lis r6,0x3e00; sldi r6,r6,32
    sc 1
    b .
""")
"""Prints `>`."""
OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "chronovisor", *sys.argv[1:]])
"""
"""Runs the command on a terminal that sends it signals."""


class OnTerminal:
    """The command on a terminal of its own, and the other end of that."""

    def __init__(self, *arguments: str) -> None:
        self.end, terminal = pty.openpty()
        self.before = termios.tcgetattr(terminal)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        self.terminal = terminal
        self.printed = b""
        self._seen = 0

    def until(self, text: bytes) -> None:
        """Read until the text comes, behind what was waited for before."""
        deadline = time.monotonic() + 120
        while (at := self.printed.find(text, self._seen)) < 0:
            if select.select([self.end], [], [], 1)[0]:
                self.printed += os.read(self.end, 1000)
            else:
                assert self.process.poll() is None, self.printed
                assert time.monotonic() < deadline, self.printed
        self._seen = at + len(text)

    def press(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def settings_are_as_before(self) -> bool:
        return termios.tcgetattr(self.terminal) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)
        os.close(self.terminal)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[OnTerminal]:
    (tmp_path / "echo.elf").write_bytes(ECHO)
    command = OnTerminal("run", str(tmp_path / "echo.elf"), "--engine", "concrete", "--timeout", "60")
    yield command
    command.close()


def until_guest_reads(run: OnTerminal) -> None:
    run.until(b"chronovisor: Ctrl-] twice ends the run")
    deadline = time.monotonic() + 60
    while termios.tcgetattr(run.terminal)[3] & termios.ISIG:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_key_is_the_guests_once_it_reads_them(run: OnTerminal) -> None:
    until_guest_reads(run)
    keys = bytes(key for key in range(256) if key not in b"\n\x1d") + b"\x1d.\n"
    for start in range(0, len(keys), 64):
        run.press(keys[start : start + 64])
    run.until(b"\x1d.")
    # What the guest prints is printed as any program's: a line feed becomes a line's end.
    run.until(b"\r\n")
    assert keys.replace(b"\n", b"\r\n") in run.printed
    assert run.process.poll() is None
    run.press(b"\x1d\x1d")
    assert run.process.wait(60) == ExitStatus.QUIT
    assert run.settings_are_as_before()


def test_the_escape_sequence_is_found_if_its_keys_come_one_by_one(run: OnTerminal) -> None:
    until_guest_reads(run)
    for key in (b"\x1d", b"\x1d"):
        run.press(key)
        time.sleep(0.2)
    assert run.process.wait(60) == ExitStatus.QUIT


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, ExitStatus.ENDED), (signal.SIGINT, ExitStatus.INTERRUPTED)]
)
def test_a_signal_from_outside_restores_the_terminal(
    run: OnTerminal, number: signal.Signals, status: int
) -> None:
    until_guest_reads(run)
    run.process.send_signal(number)
    assert run.process.wait(60) == status
    assert run.settings_are_as_before()


def test_ctrl_c_ends_a_guest_that_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "mute.elf").write_bytes(NEVER_READS)
    run = OnTerminal("run", str(tmp_path / "mute.elf"), "--engine", "concrete", "--timeout", "60")
    run.until(b">")
    run.press(b"\x03")
    assert run.process.wait(60) == ExitStatus.INTERRUPTED
    assert run.settings_are_as_before()
    run.close()
