"""The commands that the README shows, on a Linux guest; those that run it are processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.demo.linux.listener import Listener
from chronovisor.cli.status import ExitStatus
from chronovisor.report.clock_check.lines import Sample, parse
from linux_guest.guests import OWN

pytestmark = pytest.mark.oracle
README = Path(__file__).parents[2] / "README.md"
COMMAND = [sys.executable, "-m", "chronovisor"]
PATIENCE = 90.0
"""Seconds for whatever is waited for, on a machine that does much else."""
ORIGINS = ("0x76a42ee786bbc4", "12345678901234567")


def boot_command() -> list[str]:
    """The words of the command that the README boots Linux with."""
    section = README.read_text().split("\n## Boot Linux\n")[1].split("\n## ")[0]
    text = section[section.index("chronovisor run --kernel") :].split("\n\n")[0].replace("\\\n", "")
    return shlex.split(text.replace("clockcheck.seconds=60", "clockcheck.seconds=0"))[1:]


class Running:
    """A command that goes on; its guest's console is given to a listener."""

    def __init__(self, listener: Listener, words: list[str]) -> None:
        self._listener = listener
        self._process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def ends(self) -> int:
        status = self._process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        return status

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def said(self, words: str) -> None:
        """Wait for a line on standard error."""
        assert self._process.stderr is not None
        while words not in (line := self._process.stderr.readline().decode()):
            assert line, f"ended without {words!r}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 1 << 16):
            self._listener.take(data)


class Commands:
    """Commands in this process's directory, with a run directory of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.listener = Listener()
        self.running: list[Running] = []

    def starts(self, *words: str) -> Running:
        self.running.append(started := Running(self.listener, list(words)))
        return started

    def does(self, *words: str, status: int = 0) -> str:
        """Have a command answer, in this process; return what it said."""
        ended = main(words)
        said = self._capsys.readouterr()
        assert ended == status, (words, said)
        return said.out or said.err

    def asks(self, *words: str) -> object:
        return json.loads(self.does(*words, "--json"))

    def samples(self, count: int) -> None:
        """Wait for so many more samples of the guest's checker, from wherever it is."""
        deadline, begun = time.monotonic() + PATIENCE, self._samples
        while self._samples < begun + count:
            assert time.monotonic() < deadline, self.listener.text[-1000:]
            time.sleep(0.02)

    @property
    def _samples(self) -> int:
        return sum(isinstance(parse(line), Sample) for line in list(self.listener.lines))


@pytest.fixture
def kernel() -> str:
    return str(OWN.vmlinux())


@pytest.fixture
def commands(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Commands]:
    # The kernel is kept below the directory that the tests are run in.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Commands(capsys)
    yield made
    for running in made.running:
        running.kill()


def test_what_readme_does_to_a_guest_works_on_linux(kernel: str, commands: Commands) -> None:
    does, asks = commands.does, commands.asks
    does("clockcheck", "--initramfs", "clocks.cpio")
    source = commands.starts(*(kernel if word == "$kernel" else word for word in boot_command()))
    hosts = [
        commands.starts("receive", f"unix:door{n}", "--tb-origin", origin, "--memory-limit", "1G")
        for n, origin in enumerate(ORIGINS)
    ]
    for host in hosts:
        host.said("waits at")
    commands.samples(5)

    assert "linux" in does("ps")
    assert int(does("reg", "linux", "TB_OFFSET").split()[1], 16) == 0
    assert "no vCPU has registered a dispatch trace log" in does("dtl", "linux", status=ExitStatus.USAGE)
    assert "paused" in does("pause", "linux")
    assert "goes on" in does("resume", "linux", "--time", "catch-up")
    commands.samples(3)

    for n in (0, 1, 0):
        record = asks("migrate", "linux", f"unix:door{n}")
        assert isinstance(record, dict)
        assert abs(record["error_ticks"]) <= record["error_bound_ticks"]
        commands.samples(3)
    assert source.ends() == ExitStatus.OK
    assert does("history", "linux").count("move, ") == 3

    assert "saved" in does("snapshot", "linux", "linux.snap")
    assert "vCPUs             2" in does("inspect", "linux.snap")
    does("kill", "linux")
    restored = commands.starts("restore", "linux.snap", "--name", "bob")
    restored.said("bob goes on")
    commands.samples(3)
    does("stop", "bob")
    assert restored.ends() == ExitStatus.ENDED

    report = commands.listener.report()
    assert (report.backs, report.back_lines, report.disagreements) == (0, [], [])
    assert (report.timers.early, report.timers.lost) == (0, 0)
    assert report.complaints.keys() <= {"long interrupt"}
