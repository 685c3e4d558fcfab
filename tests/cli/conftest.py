"""The machine that the commands' tests run their processes on."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Machine


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Machine]:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))
    # A busy machine may stop a process for longer than people are asked to wait.
    for impatient in ("ps", "top", "kill"):
        monkeypatch.setattr(f"chronovisor.cli.{impatient}._PATIENCE", 60.0)
    made = Machine(capsys)
    yield made
    for process in made.processes:
        process.kill()
    for pid in made.detached:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for started in made.started:
        started.kill()
        started.wait()
    for way in made.ways:
        way.close()
