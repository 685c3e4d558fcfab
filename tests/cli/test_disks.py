"""The commands and disks: one guest has a disk at a time, also while it moves between processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Machine

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return path


def test_a_disk_moves_between_processes(machine: Machine, disk: Path) -> None:
    option = ("--disk", str(disk))
    here = machine.run("here", *option)
    there, address = machine.receive("there", *option)
    without, nowhere = machine.receive("without")
    machine.fails(ExitStatus.FAILED, "none is attached here", "migrate", "here", nowhere)
    machine.fails(ExitStatus.USAGE, "in use by another guest", "run", "hello-le.elf", *option)
    machine.asks("migrate", "here", address)
    assert here.ends() == 0
    machine.fails(ExitStatus.USAGE, "in use by another guest", "run", "hello-le.elf", *option)
    there.type("q")
    assert there.ends() == 0
    assert main(["run", "hello-le.elf", *option]) == 0
    without.kill()


@pytest.mark.parametrize("command", [("run", "hello-le.elf"), ("receive", "tcp:127.0.0.1:0")])
def test_what_is_no_disk_is_one_line(machine: Machine, tmp_path: Path, command: tuple[str, str]) -> None:
    (tmp_path / "short").write_bytes(bytes(100))
    for option, words in {
        str(tmp_path / "none"): "No such file or directory",
        str(tmp_path / "short"): "is it truncated?",
        f"{tmp_path},ro": "this is a directory",
        f"{tmp_path / 'short'},format=qcow2": "not in qcow2 format",
        "disk,readonly": "'readonly' is no option",
    }.items():
        machine.fails(ExitStatus.USAGE, words, *command, "--disk", option)
