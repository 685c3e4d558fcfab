"""The tutorial that begins with `make debian-disk` works as written. It needs root and takes minutes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import test_tutorials
from test_tutorials import FOLDER, Reader, blocks

from chronovisor.cli.debian import Packages
from chronovisor.cli.debian_disk import IMAGE, make

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
reader = test_tutorials.reader
BUILD = Path("build")
"""Where `make debian-disk` leaves the disk."""


def test_the_tutorial_works_as_written(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terminals.WITHIN", 900)
    shutil.copy(FOLDER.parents[1] / "README.md", tmp_path)
    if not (BUILD / IMAGE).exists():
        make(BUILD, Packages())
    for block in blocks(FOLDER / "debian-disk.md"):
        reader.reads(block)
    reader.closes()
    assert reader.compared > 20
