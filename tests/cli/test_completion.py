"""What a shell completes: typer's own completion, with each command's options."""

from __future__ import annotations

import os
import subprocess

import pytest
from processes import COMMAND


@pytest.mark.parametrize(
    ("line", "expected"), [("chronovisor sto", ["stop"]), ("chronovisor run --deta", ["--detach"])]
)
def test_a_line_is_completed(line: str, expected: list[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    environment = os.environ | {"_CHRONOVISOR_COMPLETE": "complete_bash", **words}
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (expected, "")
