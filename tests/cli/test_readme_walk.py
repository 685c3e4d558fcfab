"""The commands that the README shows work as written, on a terminal, to their end."""

import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminals import Terminal

from chronovisor.cli.status import ExitStatus
from chronovisor.machine.files import SHIPPED

README = Path(__file__).parents[2] / "README.md"
GOES_ON = {"run": "watching", "receive": "waits at", "restore": "goes on"}
"""The commands that keep their terminal in the walk, and what they print when they are ready."""


def blocks(heading: str) -> list[list[str]]:
    """The commands below a heading of the README, by block; comments are left out."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    return [[line.split("#")[0].strip() for line in block.splitlines()] for block in found]


class Walk:
    """The README's terminals."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.terminals: list[Terminal] = []

    def starts(self, command: str) -> Terminal:
        words = shlex.split(command.replace("/tmp/", f"{self.directory}/"))
        assert words[0] == "chronovisor"
        self.terminals.append(terminal := Terminal([sys.executable, "-m", *words], self.directory))
        return terminal

    def does(self, command: str) -> str:
        terminal = self.starts(command)
        assert terminal.ends() == ExitStatus.OK, f"{command}:\n{terminal.text}"
        return terminal.text


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    made = Walk(tmp_path)
    yield made
    for terminal in made.terminals:
        terminal.close()


def test_run_a_guest(walk: Walk) -> None:
    shutil.copy(SHIPPED / "hello-le.elf", walk.directory / "my-guest.elf")
    first, *others = [command for block in blocks("Run a guest") for command in block]
    assert first == ". .venv/bin/activate"
    told = {command: walk.does(command) for command in others}
    hello = [text for command, text in told.items() if " run " in command and "--trace-switch" not in command]
    assert len(hello) == 5
    assert all(text.endswith("decrementer interrupt on time\r\n") for text in hello)
    (traced,) = (text for command, text in told.items() if "--trace-switch" in command)
    assert "timebase is the guest's" in traced
    (advice,) = (text for command, text in told.items() if " offset " in command)
    assert "the kernel keeps" in advice


def test_move_a_guest(walk: Walk) -> None:
    here, there, commands, afterwards = blocks("Move a guest")
    source = walk.starts(*here)
    source.until("watching")
    source.type("t")
    destination = walk.starts(*there)
    destination.until("waits at")
    migrate, *others = commands
    assert "clock" in walk.does(migrate)
    source.until("the guest went to")
    assert source.ends() == ExitStatus.OK
    destination.until("came")
    destination.type("r")
    destination.until("back=0")
    # The source's process has let the name go when it ended; the destination's takes it at once.
    deadline = time.monotonic() + 60
    while "alice" not in (listed := walk.does("chronovisor ps")):
        assert time.monotonic() < deadline, listed
    told = {command: walk.does(command) for command in others}
    assert len(told) == 11
    assert destination.ends() == ExitStatus.ENDED
    restored = walk.starts(*afterwards)
    restored.until("bob")
    restored.type("q")
    assert restored.ends() == ExitStatus.OK
    assert "back=0" in restored.text
