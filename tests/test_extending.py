"""The worked changes of docs/extending.md apply to the source, and their tests pass with them alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
WORKED = {title: text for title, text in SECTIONS.items() if "```diff" in text}
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"^```\{code-block\} python\n:caption: (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copied(directory: Path) -> None:
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", directory / "src", ignore=without)
    for folder in ("isa", "machine"):
        shutil.copytree(ROOT / "tests" / folder, directory / "tests" / folder, ignore=without)


def outcome(directory: Path, test: str) -> tuple[int, str]:
    environment = os.environ | {
        "PYTHONPATH": f"{directory / 'src'}:{directory / 'tests'}",
        "CHRONOVISOR_CACHE": str(directory / "cache"),
    }
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", test]
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_four_changes_are_worked() -> None:
    assert list(WORKED) == ["An instruction", "A register", "A hypercall", "A device"]


@pytest.mark.parametrize("title", WORKED)
def test_a_worked_change_works(title: str, tmp_path: Path) -> None:
    copied(tmp_path)
    ((test, text),) = TEST.findall(WORKED[title])
    (tmp_path / test).write_text(text)
    status, said = outcome(tmp_path, test)
    assert status == 1, f"the test does not fail without the change:\n{said}"
    for diff in DIFF.findall(WORKED[title]):
        patch = subprocess.run(
            ["patch", "-p1", "--batch", "--forward"], input=diff, cwd=tmp_path, capture_output=True, text=True
        )
        assert patch.returncode == 0, patch.stdout + patch.stderr
    status, said = outcome(tmp_path, test)
    assert status == 0, said
