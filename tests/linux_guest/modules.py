"""Modules of the kernels that the tests boot."""

from __future__ import annotations

from chronovisor.cli import kernel_modules
from chronovisor.cli.debian import Packages
from chronovisor.cli.kernel_modules import DISK, NETWORK
from linux_guest.guests import Kernel


def device_modules(kernel: Kernel) -> dict[str, bytes]:
    """Return what a disk and a network card need, by names of files, in the order of loading."""
    directory = Packages(suite=kernel.suite).kernel(kernel.flavour)
    return kernel_modules.modules(directory, (*DISK, *NETWORK))
