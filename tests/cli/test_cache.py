"""`chronovisor cache`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.engine.native import code_cache

VERSION = "0123456789abcdef" * 2


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path / "code"))
    return tmp_path / "code"


def test_show_and_clear(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code_cache.keep("pairs-64le", VERSION, bytes((1 << 20) - 32))
    code_cache.keep("runtime", VERSION, bytes((1 << 20) - 32))
    assert main(["cache"]) == ExitStatus.OK
    assert capsys.readouterr().out.splitlines() == [
        str(place),
        "KIND                   FILES  SIZE",
        "functions beside them      1  1.0 MiB",
        "pairs of instructions      1  1.0 MiB",
        "all                        2  2.0 MiB of at most 256.0 MiB",
    ]
    assert main(["cache", "--json"]) == ExitStatus.OK
    shown = json.loads(capsys.readouterr().out)
    assert (shown["directory"], shown["files"], shown["bytes"]) == (str(place), 2, 2 << 20)
    assert main(["cache", "clear"]) == ExitStatus.OK
    assert capsys.readouterr().out == f"{place}: 2 files deleted, 2.0 MiB\n"
    assert main(["cache", "clear", "--json"]) == ExitStatus.OK
    assert json.loads(capsys.readouterr().out)["deleted"] == 0


def test_a_directory_of_others_is_not_cleared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code_cache.keep("runtime", VERSION, b"code")
    place.chmod(0o777)
    assert main(["cache", "clear"]) == ExitStatus.USAGE
    said = capsys.readouterr().err
    assert said == f"chronovisor: {place}: others can write to it, so the files may be somebody else's\n"
    assert len(list(place.iterdir())) == 1


def test_what_is_no_directory(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.write_text("a file")
    for action in ("show", "clear"):
        assert main(["cache", action]) == ExitStatus.USAGE
        assert capsys.readouterr().err == f"chronovisor: {place}: Not a directory\n"


def test_an_unknown_action_is_refused_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "bogus"]) == ExitStatus.USAGE
    said = capsys.readouterr().err
    assert said == "chronovisor: Invalid value for 'action': 'bogus' is not one of 'show', 'clear'.\n"
