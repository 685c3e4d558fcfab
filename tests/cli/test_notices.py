"""What the engine logs reaches the user: warnings always, progress on a terminal."""

from __future__ import annotations

import logging
import sys

import pytest

from chronovisor.cli.notices import engine_notices

ENGINE = logging.getLogger("chronovisor.engine.native.compile_service")


@pytest.mark.parametrize(("terminal", "told"), [(True, ["compiling", "failed"]), (False, ["failed"])])
def test_progress_is_for_terminals_and_warnings_are_for_all(
    terminal: bool,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with engine_notices():
        ENGINE.info("compiling")
        ENGINE.warning("failed")
    assert capsys.readouterr().err.splitlines() == [f"chronovisor: {line}" for line in told]
