"""What is kept of guests in the background, while several of them begin at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.machine.control import ControlServer
from chronovisor.machine.guest_records import GuestRecord


def test_a_guest_begins_while_another_one_looks_for_the_oldest_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path))
    GuestRecord("old").begin()
    iterdir = Path.iterdir

    def begin_old_anew() -> None:
        with ControlServer("old", {}):
            GuestRecord("old").forget()

    other = threading.Thread(target=begin_old_anew)

    def slowly(path: Path) -> Iterator[Path]:
        found = list(iterdir(path))
        other.start()
        other.join(0.3)
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", slowly)
        GuestRecord("new").begin()
    other.join(60)
    assert (GuestRecord("new").exists, GuestRecord("old").exists) == (True, False)
