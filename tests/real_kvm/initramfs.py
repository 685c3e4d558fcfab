"""The first file system of the machine inside: Debian's Python for Power, KVM's modules, and this project.

What comes from Debian is put together once and kept; the project's part is another archive behind it, made
each time.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

from chronovisor.cli.debian import Packages
from chronovisor.machine.cpio import Archive
from real_kvm.wheels import PROJECT, wheelhouse

PYTHON: Final = "python3.11"
COMPILER: Final = "powerpc64le-linux-gnu-gcc"
_PACKAGES: Final = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "python3-pip"),
    *("libc6", "zlib1g", "libexpat1", "libffi8"),
)
_LEFT_OUT: Final = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/lintian",
    "usr/share/python3",
    "gconv",
    "usr/share/binfmts",
)
_NOT_OF_THE_LIBRARY: Final = ("test", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "tkinter")
MODULES: Final = (
    "arch/powerpc/kvm/kvm.ko",
    "arch/powerpc/kvm/kvm-hv.ko",
    "drivers/net/ethernet/ibm/ibmveth.ko",
)
"""Kernel modules in the order in which they are loaded: KVM, and the network card of such machines."""


def base(packages: Packages) -> Path:
    """Return the archive of what comes from Debian."""
    kernel = packages.kernel()
    archive = packages.directory / f"base-{kernel.name}.cpio"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=packages.directory) as scratch:
            root = packages.unpack(_PACKAGES, Path(scratch) / "root")
            _prune(root)
            for library in (PYTHON, "python3"):
                _compile(root / "usr/lib" / library, f"/usr/lib/{library}")
            partial = Path(scratch) / "base.cpio"
            with partial.open("wb") as file:
                out = Archive(file)
                for name in ("dev", "proc", "sys", "tmp", "run"):
                    out.directory(name)
                out.character_device("dev/console", 5, 1)
                out.character_device("dev/null", 1, 3)
                out.tree(root)
                for module in MODULES:
                    found = next((kernel / "lib/modules").glob(f"*/kernel/{module}"))
                    out.file(f"lib/mod/{found.name}", found.read_bytes())
                out.close()
            partial.rename(archive)
    return archive


def initramfs(packages: Packages, into: Path) -> Path:
    """Write the whole file system to `into`, with the project as it is now, and return it."""
    wheels = wheelhouse(packages.directory / "wheels")
    with tempfile.TemporaryDirectory() as scratch, into.open("wb") as file:
        with base(packages).open("rb") as kept:
            shutil.copyfileobj(kept, file)
        project = Path(scratch)
        for wheel in wheels.glob("*.whl"):
            # This project comes as it is, not as it was built.
            if not wheel.name.startswith("chronovisor"):
                zipfile.ZipFile(wheel).extractall(project / "site")
        shutil.copytree(PROJECT / "src/chronovisor", project / "src/chronovisor", ignore=_no_bytecode)
        for part in ("conformance", "real_kvm"):
            shutil.copytree(PROJECT / "tests" / part, project / "tests" / part, ignore=_no_bytecode)
        _compile(project, "/project")
        out = Archive(file)
        out.tree(project, "project")
        out.tree(wheels, "wheels")
        out.file("usr/bin/kvm-figures", _compiled(Path(__file__).parent / "figures.c", project), 0o755)
        out.file("init", (Path(__file__).parent / "init.py").read_bytes(), 0o755)
        out.close()
    return into


_no_bytecode = shutil.ignore_patterns("__pycache__", "data")


def _compiled(source: Path, scratch: Path) -> bytes:
    """The program of a C source, for Power, with its libraries in it."""
    program = scratch / source.stem
    subprocess.run([COMPILER, "-O2", "-static", "-o", program, source], check=True, timeout=100)
    return program.read_bytes()


def _prune(root: Path) -> None:
    for directory, names, _ in os.walk(root, topdown=True):
        here = Path(directory)
        for name in list(names):
            path = here / name
            relative = str(path.relative_to(root))
            of_the_library = here == root / "usr/lib" / PYTHON and name in _NOT_OF_THE_LIBRARY
            if of_the_library or relative in _LEFT_OUT or name in _LEFT_OUT:
                shutil.rmtree(path)
                names.remove(name)


def _compile(directory: Path, seen_as: str) -> None:
    """Have bytecode beside the sources: what Python of one minor version makes here, it takes there."""
    if sys.version_info[:2] != (3, 11):
        return
    with warnings.catch_warnings():
        # What its authors' sources have is not this project's to mend.
        warnings.simplefilter("ignore")
        compileall.compile_dir(
            directory,
            stripdir=str(directory),
            prependdir=seen_as,
            quiet=2,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
