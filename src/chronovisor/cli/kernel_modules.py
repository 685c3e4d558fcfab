"""Modules of Debian's kernels for initial file systems: those that are needed, in the order of loading."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from chronovisor.cli.debian import FetchError

DISK: Final = ("crct10dif_generic", "sd_mod", "ibmvscsi", "crc32c_generic", "ext4")
"""What a file system of ext4 on a virtual disk needs."""
NETWORK: Final = ("ibmveth",)
"""What a virtual network card needs."""
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)")


def modules(kernel: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return modules and those that they depend on, by names of files, in the order of loading.

    `kernel` is the directory of an unpacked kernel package (`Packages.kernel`); FetchError if it lacks one.
    What is built into the kernel is left out.
    """
    paths = {_name(path): path for path in kernel.rglob("*.ko*")}
    built_in = {
        _name(Path(line)) for one in kernel.rglob("modules.builtin") for line in one.read_text().split()
    }
    found: dict[str, bytes] = {}
    for name in names:
        _add(name, paths, built_in, found)
    return found


def _name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def _add(name: str, paths: dict[str, Path], built_in: set[str], found: dict[str, bytes]) -> None:
    if name in built_in:
        return
    if name not in paths:
        raise FetchError(f"the kernel's package has no module {name}")
    content = paths[name].read_bytes()
    if paths[name].suffix == ".xz":
        # Debian 13's.
        content = lzma.decompress(content)
    depends = _DEPENDS.search(content)
    for needed in depends[1].decode().split(",") if depends is not None else ():
        if needed:
            _add(needed.replace("-", "_"), paths, built_in, found)
    found.setdefault(f"{name}.ko", content)


def loading(found: Iterable[str]) -> str:
    """Return the lines of a shell script that load modules, which are in /bin."""
    return "".join(f"insmod /bin/{name}\n" for name in found)
