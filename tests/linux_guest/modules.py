"""Modules of Debian's kernels, for initial file systems that need them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from chronovisor.cli.debian import Packages
from linux_guest.guests import Kernel

DISK = ("crct10dif_generic", "sd_mod", "ibmvscsi", "crc32c_generic", "ext4")
"""What a file system of ext4 on a virtual disk needs."""
NETWORK = ("ibmveth",)
"""What a virtual network card needs."""


def modules(kernel: Kernel, names: Iterable[str]) -> dict[str, bytes]:
    """Return modules and those that they depend on, by names of files, in the order of loading."""
    directory = Packages(suite=kernel.suite).kernel(kernel.flavour) / "lib/modules"
    paths = {path.stem.replace("-", "_"): path for path in directory.rglob("*.ko")}
    found: dict[str, bytes] = {}
    for name in names:
        _add(name, paths, found)
    return found


def _add(name: str, paths: dict[str, Path], found: dict[str, bytes]) -> None:
    content = paths[name].read_bytes()
    depends = re.search(rb"\0depends=([^\0]*)", content)
    assert depends is not None
    for needed in filter(None, depends[1].decode().split(",")):
        _add(needed.replace("-", "_"), paths, found)
    found.setdefault(f"{name}.ko", content)


def loading(found: Iterable[str]) -> str:
    """Return the lines of a shell script that load modules, which are in /bin."""
    return "".join(f"insmod /bin/{name}\n" for name in found)
