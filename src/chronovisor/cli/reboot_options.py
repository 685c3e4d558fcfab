"""The options of commands that take a guest which began elsewhere: what it begins with if it reboots here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from chronovisor.machine.host import start_with
from chronovisor.machine.start import Start

Kernel: TypeAlias = Annotated[
    str,
    typer.Option(
        help="The image that the guest began with (its kernel, or IMAGE of `run`): it begins with this again "
        "if it reboots here. Without it, a reboot ends the guest.",
        metavar="FILE",
    ),
]
Initrd: TypeAlias = Annotated[
    str, typer.Option(help="With --kernel: the initial RAM disk for a reboot.", metavar="FILE")
]
Append: TypeAlias = Annotated[str, typer.Option(help="With --kernel: the command line for a reboot.")]


def after_reboot(kernel: str, initrd: str, append: str) -> Start | None:
    """What a guest begins with if it reboots; None without a kernel. MachineError for a wrong file."""
    if not kernel:
        return None
    return start_with(kernel, append, initrd or None)
