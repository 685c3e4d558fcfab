"""The wheel and the source distribution: what is in them, and that they work in an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel made from the source distribution.

    They are made from a copy: setuptools writes into the sources, and another process may be doing the same.
    """
    folder, copy = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("copy") / "sources"
    # What is made by `make docs` is copied too: it must not be in a distribution.
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "build"))
    run(sys.executable, "-m", "build", "--outdir", folder, copy, cwd=folder)
    return folder


@pytest.mark.soak
def test_the_source_distribution_has_what_contributors_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "CONTRIBUTING.md", "docs/index.md", "docs/conf.py", "tests/test_distribution.py"}
    assert needed <= names
    # What is made is made where it is unpacked.
    assert not [
        name for name in names if name.startswith(("docs/commands", "build")) or name.endswith(".pyc")
    ]


@pytest.mark.soak
def test_the_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"chronovisor/py.typed", "chronovisor/machine/images/hello-le.elf"} <= names
    assert all(name.startswith(("chronovisor/", "chronovisor-")) for name in names)
    venv.create(tmp_path / "empty", with_pip=True)
    programs = tmp_path / "empty" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    command = programs / "chronovisor"
    version = wheel.name.split("-")[1]
    assert run(command, "--version", cwd=tmp_path) == f"chronovisor {version}\n"
    said = run(command, "run", "hello-le", "--clock", "virtual", "--engine", "concrete", cwd=tmp_path)
    assert said.endswith("decrementer interrupt on time\n")
    code = "import chronovisor as cv; print(cv.Host(clock='virtual').boot('hello-be').run().message)"
    assert run(programs / "python", "-c", code, cwd=tmp_path) == "the guest powered off\n"
    # The package brings the native code of every guest.
    environment = {**os.environ, "CHRONOVISOR_CACHE": str(tmp_path / "cache")}
    for image in ("hello-le", "hello-be"):
        done = subprocess.run(
            [command, "run", image, "--engine", "regions", "--stats"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(r"handlers, in sets +0 +0\.00 s +5 ", done.stderr), done.stderr
    assert not (tmp_path / "cache").exists()
    # What is an extra is asked for in words.
    done = subprocess.run(
        [command, "run", "hello-le", "--trace", "trace"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'chronovisor[traces]'" in done.stderr
