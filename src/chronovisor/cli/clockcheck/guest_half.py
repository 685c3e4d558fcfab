"""Hands out the guest's half: the program by itself, or an initramfs with nothing else in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from chronovisor.machine.cpio import Archive
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import SHIPPED

_PROGRAMS: Final = SHIPPED / "clockcheck"
ARCHITECTURES: Final = ("ppc64le", "ppc64", "x86-64", "aarch64")


def program(arch: str) -> bytes:
    """Return the static program for a processor; MachineError if there is none."""
    if arch not in ARCHITECTURES:
        raise MachineError(f"there is no program for {arch!r}: choose one of {', '.join(ARCHITECTURES)}")
    return (_PROGRAMS / arch).read_bytes()


def initramfs(arch: str) -> bytes:
    """Return an archive in which the program is /init: with a kernel, a complete guest."""
    out = io.BytesIO()
    archive = Archive(out)
    for directory in ("dev", "proc"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", program(arch), 0o755)
    archive.close()
    return out.getvalue()


def write(path: Path, content: bytes, executable: bool = False) -> None:
    """Write a file; MachineError, in one line, if it cannot be written."""
    try:
        path.write_bytes(content)
        if executable:
            path.chmod(0o755)
    except OSError as error:
        raise MachineError(f"{path}: {error.strerror}") from None
