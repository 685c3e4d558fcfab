"""What a shell completes: commands and options, by typer, and the names of guests that run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from processes import COMMAND

from chronovisor.machine.run_directory import claim


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("chronovisor sto", ["stop"]),
        ("chronovisor run --deta", ["--detach"]),
        ("chronovisor stop al", ["alice", "alan"]),
        ("chronovisor history bo", ["bob"]),
        ("chronovisor reg bob TB_", ["TB_OFFSET"]),
        ("chronovisor reg bob dec", ["dec_expiry"]),
    ],
)
def test_a_line_is_completed(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = os.environ | {"_CHRONOVISOR_COMPLETE": "complete_bash", **words}
    with claim("alice"), claim("alan"), claim("bob"):
        done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True)
    assert (sorted(done.stdout.split()), done.stderr) == (sorted(expected), "")
