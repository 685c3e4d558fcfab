"""Files with Power machine code: from Debian's cross tools, and made by ourselves."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_PREFIX = {True: "powerpc64le-linux-gnu-", False: "powerpc64-linux-gnu-"}
ORIGIN = 0x10000


def built(directory: Path, text: str, little: bool = True, link: bool = False, suffix: str = ".s") -> Path:
    """An object file, or an executable where `link`, of GNU assembly or of C where `suffix` is .c."""
    compiler = _PREFIX[little] + "gcc"
    if shutil.which(compiler) is None:
        reason = f"{compiler} is not installed (Debian: gcc-{_PREFIX[little]}gnu)".replace("-gnu-gnu", "-gnu")
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    source, made = directory / f"code{suffix}", directory / ("code.elf" if link else "code.o")
    source.write_text(text)
    how = ["-nostdlib", "-static", f"-Wl,-Ttext={ORIGIN:#x}", "-Wl,-e,0"] if link else ["-c"]
    subprocess.run([compiler, "-O2", *how, "-o", made, source], check=True, capture_output=True, timeout=60)
    return made


def stripped(path: Path, little: bool = True) -> Path:
    """The file without its symbols."""
    subprocess.run([_PREFIX[little] + "strip", path], check=True, capture_output=True, timeout=60)
    return path
