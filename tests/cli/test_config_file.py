"""`run --config`: options from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus

GUEST = """
image = "hello-le.elf"
memory = "32M"
smp = 1
clock = "virtual"
no-reboot = true
ticks-per-instruction = 128
"""


def run(*arguments: str) -> str:
    words = [sys.executable, "-m", "chronovisor", "run", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=True).stdout


def test_a_files_options_are_those_of_the_command_line_which_count_more(tmp_path: Path) -> None:
    file = tmp_path / "guest.toml"
    file.write_text(GUEST)
    said = run("--config", str(file))
    options = ("--memory", "32M", "--clock", "virtual", "--no-reboot", "--ticks-per-instruction")
    assert said == run("hello-le.elf", *options, "128")
    assert said != run("hello-le.elf", *options, "256")
    assert run("--config", str(file), "--ticks-per-instruction", "256") == run(
        "hello-le.elf", *options, "256"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "there is no option --colour"),
        ("[guest]\nmemory = 1", "there is no option --guest"),
        ('config = "other.toml"', "there is no option --config"),
        ('memory = "x', "Unterminated string"),
        ("memory = [1]", "memory is a text or a number"),
        ("memory = true", "memory is a text or a number"),
        ('no-reboot = "yes"', "no-reboot is true or false"),
        ("disk = [[1]]", "disk is a text or a number"),
        ('clock = "lunar"', "--clock"),
        ("\udcff", "UTF-8"),
    ],
)
def test_files_that_make_no_sense(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "guest.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["run", "hello-le.elf", "--config", str(file)]) == ExitStatus.USAGE
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert said in printed


def test_disks_come_as_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "guest.toml"
    file.write_text(f'image = "hello-le.elf"\ndisk = ["{tmp_path}/one", "{tmp_path}/two"]')
    assert main(["run", "--config", str(file)]) == ExitStatus.USAGE
    assert f"disk {tmp_path}/one" in capsys.readouterr().err
