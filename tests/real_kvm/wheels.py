"""A directory of wheels with which `pip install` works on a Power machine that has no network.

Which packages those are follows from the metadata of this project and of what it needs, asked as on Power:
what has no wheels there stands behind a marker, and must not be wanted.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement

PROJECT: Final = Path(__file__).parents[2]
POWER: Final = {"platform_machine": "ppc64le", "python_version": "3.11", "extra": ""}
_PLATFORM: Final = "manylinux_2_17_ppc64le"
"""The oldest C library that a wheel may ask for where one is not pure Python."""


def needed(project: str = "chronovisor") -> dict[str, str]:
    """Return what `project` needs on a Power machine, with the versions that are installed here."""
    environment: dict[str, str] = {**default_environment(), **POWER}  # type: ignore[dict-item]
    found: dict[str, str] = {}
    left = [project]
    while left:
        for line in distribution(left.pop()).requires or ():
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate(environment)
            if wanted and requirement.name not in found:
                found[requirement.name] = distribution(requirement.name).version
                left.append(requirement.name)
    return found


def wheelhouse(directory: Path) -> Path:
    """Have the wheels of all that is needed in `directory`, and the project's own made anew; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [
        f"{name}=={version}"
        for name, version in needed().items()
        if not any(directory.glob(f"{name.replace('-', '_').lower()}-{version}-*.whl"))
    ]
    if missing:
        for_power = ("--python-version", POWER["python_version"], "--platform", _PLATFORM)
        _pip("download", "--no-deps", "--only-binary=:all:", *for_power, "--dest", str(directory), *missing)
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
