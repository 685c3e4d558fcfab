"""What `debian_disk` says if the disk cannot be made, and that a failure leaves what was there.

The tutorial's test and the build in a guest use disks that were made (`test_debian_tutorial`, `test_build`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chronovisor.cli import debian_disk
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.debian_disk import IMAGE, first_stage, main

SAID = (
    "I: running apt-get update...\nE: Unable to locate package nowhere\nE: apt download failed: E: apt-get\n"
)


class NoPackages(Packages):
    """A mirror, and nothing on it."""

    def __init__(self) -> None:
        pass

    def mirror(self) -> tuple[str, str]:
        return "http://mirror.invalid/debian", "bookworm"


def failing(tools: Path, program: str) -> None:
    """Have a program of that name that begins, and then fails as mmdebstrap does."""
    path = tools / program
    begins = f'echo "$@" >{tools}/asked\nmkdir -p {tools}/{IMAGE}.root/etc\n'
    path.write_text(f"#!/bin/sh\n{begins}cat >&2 <<END\n{SAID}END\nexit 1\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["?all", "gcc,make", "--help", "GCC", "x"])
def test_what_is_no_packages_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is no package's name"):
        debian_disk.make(tmp_path / "new", NoPackages(), ["gcc", name])
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_refused_is_one_line_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["disks", "gcc make"])
    assert ended.value.code == "debian_disk.py: 'gcc make' is no package's name"


def test_what_apt_says_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for program in ("mke2fs", "mmdebstrap"):
        failing(tmp_path, program)
    with pytest.raises(FetchError, match=r"^mmdebstrap failed: Unable to locate package nowhere$"):
        first_stage(tmp_path / f"{IMAGE}.partial", NoPackages(), tmp_path, ["gcc", "nowhere"])
    asked = (tmp_path / "asked").read_text()
    assert "--include=gcc --include=nowhere" in asked
    assert "bookworm" in asked
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked", "mke2fs", "mmdebstrap"]
