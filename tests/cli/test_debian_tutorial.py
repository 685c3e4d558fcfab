"""The tutorial that begins with `make debian-disk` works as written. It needs root and takes minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import test_tutorials
from test_tutorials import FOLDER, Reader, blocks

sys.path.insert(0, str(Path(__file__).parents[1]))
from linux_guest.build_guest import made

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
reader = test_tutorials.reader


def test_the_tutorial_works_as_written(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("terminals.WITHIN", 900)
    made()
    for block in blocks(FOLDER / "debian-disk.md"):
        reader.reads(block)
    reader.closes()
    assert reader.compared > 20
