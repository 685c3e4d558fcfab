"""The tutorials of docs/ work as written: their commands are run on terminals, and say what the page shows.

In a block of `console`, a line that begins with `$` is a command, `[q]` is a key that is typed, and all other
lines are what the command prints, from its first line on: `…` stands for any text in a line, alone for any
lines. `[words ⏎]` at the end of a line is typed once the line's beginning is there. A block's caption names
its terminal. A block of another kind with a caption is a file.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from terminals import Terminal

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
FENCE = re.compile(
    r"^```(?:\{code-block\} )?(\w+)\n(?::caption: ([^\n]*)\n)?(.*?)^```$", re.MULTILINE | re.DOTALL
)
TYPED = re.compile(r"(.*)\[(.+) ⏎\]")
PASTING = re.compile(r"\x1b\[\?2004[hl]\r?")
"""What shells send to terminals around a line that is typed."""
LONG = {"debian-disk"}
"""Has a test of its own."""
NEEDS = {"powerpc64-linux-gnu-gcc", "powerpc64le-linux-gnu-gcc", "gdb-multiarch"}


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str
    caption: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.groups(default="")) for found in FENCE.finditer(page.read_text())]


def shown_by(terminal: Terminal) -> str:
    """What is on a terminal."""
    return re.sub(r"\r+\n", "\n", PASTING.sub("", terminal.text))


def pattern(lines: list[str], whole: bool = True) -> re.Pattern[str]:
    """What these lines stand for, from the first to the last, with the last one's end if they are `whole`."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            # Columns are as wide as what is in them.
            parts.append(re.sub(r"(?:\\ ){2,}", "  +", ".*?".join(map(re.escape, line.split("…")))) + r"\n")
    return re.compile("".join(parts) if whole else "".join(parts).removesuffix(r"\n"))


class Reader:
    """Somebody who works through a page."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._terminals: dict[str, Terminal] = {}
        self._seen: dict[str, int] = {}
        self._goes_on: dict[str, bool] = {}
        """Whether the page says that there is more than it shows, by an … at the end."""
        self._status = 0
        self.compared = 0

    def reads(self, block: Block) -> None:
        if block.kind != "console":
            assert block.caption, "a block that is neither a console's nor a file"
            (self._directory / block.caption).write_text(block.text)
            return
        shown: list[str] = []
        for line in block.text.splitlines():
            if line.startswith("$ ") or re.fullmatch(r"\[.\]", line):
                self._expects(block.caption, shown)
                shown = []
            if line.startswith("$ "):
                self._does(block.caption, line[2:])
            elif re.fullmatch(r"\[.\]", line):
                self._terminals[block.caption].type(line[1])
            elif typed := TYPED.fullmatch(line):
                self._expects(block.caption, [*shown, typed[1]], whole=False)
                self._terminals[block.caption].type(f"{typed[2]}\r")
                shown = [typed[2]]
            else:
                shown.append(line)
        self._expects(block.caption, shown)

    def closes(self) -> None:
        for terminal in list(self._terminals):
            self._ends(terminal)

    def _does(self, terminal: str, command: str) -> None:
        self._ends(terminal)
        if command == "echo $?":
            command = f"echo {self._status}"
        elif self._status:
            raise AssertionError(f"{command} comes behind a command that ended with {self._status}")
        words = ["sh", "-c", f"exec {command}"]
        self._terminals[terminal] = Terminal(words, self._directory, columns=200)
        self._seen[terminal] = 0
        self._goes_on[terminal] = False

    def _expects(self, terminal: str, lines: list[str], whole: bool = True) -> None:
        """Wait for these lines; the last may go on unless they are `whole`."""
        if not lines:
            return
        there, wanted = self._terminals[terminal], pattern(lines, whole)
        while True:
            text = shown_by(there)
            if found := wanted.match(text, self._seen[terminal]):
                break
            assert there.read(), f"{there.command} printed\n{text[self._seen[terminal] :]}\nand not\n" + (
                "\n".join(lines)
            )
        self._seen[terminal] = found.end()
        self._goes_on[terminal] = lines[-1] == "…"
        self.compared += len(lines)

    def _ends(self, terminal: str) -> None:
        """The command there ends, and has printed no more than the page shows."""
        there = self._terminals.pop(terminal, None)
        if there is not None:
            status = there.ends()
            text = shown_by(there)
            there.close()
            self._status = status
            rest = text[self._seen[terminal] :]
            assert self._goes_on[terminal] or not rest, f"{there.command} also printed\n{rest}"

    def kills(self) -> None:
        for terminal in self._terminals.values():
            terminal.kill()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    # No bold headings.
    monkeypatch.setenv("TERM", "dumb")
    # What is downloaded is kept there.
    (tmp_path / "build").symlink_to(FOLDER.parents[1] / "build")
    made = Reader(tmp_path)
    yield made
    made.kills()


@pytest.mark.parametrize(
    "page",
    [
        # One is enough in `make test`; CI and `make soak` run all.
        pytest.param(path.stem, marks=() if path.stem == "timer-gdb" else pytest.mark.soak)
        for path in sorted(FOLDER.glob("*.md"))
        if path.stem not in LONG
    ],
)
def test_a_tutorial_works_as_written(page: str, reader: Reader) -> None:
    told = blocks(FOLDER / f"{page}.md")
    needed = {word for block in told for word in block.text.split() if word in NEEDS}
    if missing := sorted(word for word in needed if shutil.which(word) is None):
        pytest.skip(f"{', '.join(missing)} is not installed")
    for block in told:
        reader.reads(block)
    reader.closes()
    assert reader.compared > 5


def test_a_page_that_is_wrong_is_noticed(reader: Reader) -> None:
    reader.reads(Block("console", "", "$ seq 2\n1\n"))
    with pytest.raises(AssertionError, match="also printed"):
        reader.closes()
    reader.reads(Block("console", "", "$ false\n"))
    with pytest.raises(AssertionError, match="ended with 1"):
        reader.reads(Block("console", "", "$ true\n"))
    with pytest.raises(AssertionError, match="and not"):
        reader.reads(Block("console", "", "$ echo $?\n2\n"))
