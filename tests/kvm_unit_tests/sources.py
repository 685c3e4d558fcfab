"""kvm-unit-tests' sources and what is built from them."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = "https://gitlab.com/kvm-unit-tests/kvm-unit-tests.git"
COMMIT: Final = "1da1819e"
COMPILERS: Final = {"little": "powerpc64le-linux-gnu-", "big": "powerpc64-linux-gnu-"}
_GIVEN: Final = os.environ.get("KVM_UNIT_TESTS")
"""A checkout to use in place of a download."""
_SECONDS: Final = 300


class Unavailable(Exception):
    """The sources or the compilers cannot be had."""


@dataclass(frozen=True)
class Unit:
    """A section of unittests.cfg."""

    name: str
    file: str
    smp: str
    arguments: str
    options: str
    """Options of QEMU that the section asks for."""


def fetch(folder: Path) -> Path:
    """Return a checkout, downloaded into `folder` unless one is given. Unavailable says why there is none."""
    if _GIVEN:
        return Path(_GIVEN)
    checkout = folder / "sources"
    try:
        _do("git", "clone", "--quiet", "--depth", "50", REPOSITORY, str(checkout))
        _do("git", "-C", str(checkout), "checkout", "--quiet", COMMIT)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"kvm-unit-tests' sources cannot be fetched: {error}") from None
    return checkout


def build(checkout: Path, endian: str, folder: Path) -> Path:
    """Build the tests for one byte order; return the folder of their ELF files."""
    if shutil.which(f"{COMPILERS[endian]}gcc") is None:
        raise Unavailable(f"needs {COMPILERS[endian]}gcc")
    folder.mkdir(parents=True)
    configure = checkout.resolve() / "configure"
    options = ("--arch=ppc64", f"--endian={endian}", f"--cross-prefix={COMPILERS[endian]}")
    _do(str(configure), *options, cwd=folder)
    _do("make", "-j2", cwd=folder)
    return folder / "powerpc"


def _do(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(
        command, cwd=cwd, check=True, timeout=_SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def units(checkout: Path) -> dict[str, Unit]:
    """Return the sections of the tests' own list."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(checkout / "powerpc" / "unittests.cfg")
    return {
        name: Unit(
            name,
            section["file"],
            section.get("smp", "1"),
            _shell(section.get("test_args", "")),
            section.get("qemu_params", ""),
        )
        for name, section in parser.items()
        if "file" in section
    }


def _shell(arguments: str) -> str:
    """The arguments with their commands executed, as the tests' own runner does it."""
    done = subprocess.run(["bash", "-c", f"echo {arguments}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()
