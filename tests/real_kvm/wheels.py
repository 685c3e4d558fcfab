"""A directory of wheels with which `pip install` works on a Power machine that has no network.

Which packages those are, pip finds from the project's own metadata, asked as on Power: what has no wheels
there stands behind a marker, and all that is needed there is pure Python.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement

PROJECT: Final = Path(__file__).parents[2]
_POWER: Final = {"platform_machine": "ppc64le", "python_version": "3.11", "extra": ""}
_PLATFORM: Final = "manylinux_2_17_ppc64le"
"""The oldest C library that a wheel may ask for where one is not pure Python."""


def needed() -> list[str]:
    """Return what the project itself asks for on a Power machine."""
    environment: dict[str, str] = {**default_environment(), **_POWER}  # type: ignore[dict-item]
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [Requirement(line) for line in declared]
    return sorted(
        f"{one.name}{one.specifier}"
        for one in wanted
        if one.marker is None or one.marker.evaluate(environment)
    )


def wheelhouse(directory: Path) -> Path:
    """Have the wheels of all that is needed in `directory`, and the project's own as it is now; return it.

    RuntimeError where one of them is not pure Python, or cannot be had.
    """
    directory.mkdir(parents=True, exist_ok=True)
    listed = directory / "needed.txt"
    wanted = "\n".join(needed())
    if not listed.exists() or listed.read_text() != wanted:
        for old in directory.iterdir():
            old.unlink()
        for_power = ("--python-version", _POWER["python_version"], "--platform", _PLATFORM)
        _pip("download", "--only-binary=:all:", *for_power, "--dest", str(directory), *needed())
        listed.write_text(wanted)
    native = [wheel.name for wheel in directory.glob("*.whl") if not wheel.stem.endswith("-any")]
    if native:
        raise RuntimeError(f"not pure Python, and needed on a Power machine: {', '.join(native)}")
    ours = list(directory.glob("chronovisor-*.whl"))
    sources = [PROJECT / "pyproject.toml", *(PROJECT / "src").rglob("*.py")]
    newest = max(source.stat().st_mtime for source in sources)
    if not ours or min(wheel.stat().st_mtime for wheel in ours) < newest:
        for old in ours:
            old.unlink()
        _pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(PROJECT))
    return directory


def _pip(*arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines()
        raise RuntimeError(f"pip {arguments[0]} failed: {said[-1] if said else ended.returncode}")
