"""What a terminal shows of a move that is under way."""

from __future__ import annotations

import io
import json
import sys

import pytest

from chronovisor.cli.move_progress import as_lines, shown
from chronovisor.migration.precopy import Progress

STEP = Progress(2, 3 << 20, 5 << 20, 7_000_000).as_json()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_round_rate_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown(True) as hear:
        hear(STEP)
    text = terminal.getvalue()
    assert "round 2" in text
    assert "7 MB/s, 5 MiB left" in text
    assert "3.0/8.0 MiB" in text


def test_what_is_no_terminal_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shown(True) as hear:
        hear(STEP)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown(False) as hear:
        hear(STEP)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert capsys.readouterr() == ("", "")


def test_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    with as_lines() as hear:
        hear(STEP)
        hear(STEP)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"progress": STEP}] * 2
