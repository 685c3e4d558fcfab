"""`chronovisor dump`: a running or paused guest as an ELF core file."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.machine.control import ask


def command(
    name: GuestName,
    file: Annotated[str, typer.Argument(help="The file to write; an existing file is replaced.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Write a guest's memory and registers to an ELF core file, which `gdb-multiarch [SYMBOLS] FILE` reads.

    Each vCPU is a thread. The guest is stopped while the file is written and goes on afterwards, unless it
    was paused. The core has memory at its real addresses. It is also at 0xc000000000000000, the linear map
    of a Linux kernel, if that address leads there. Pages that are all zeros take no room on the disk.
    """
    answer = ask(name, "dump", path=os.path.abspath(file))
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    stopped = answer["stopped_ns"] / 1e6
    print(f"{name} is dumped in {file}: {answer['memory'] >> 20} MiB; it was stopped for {stopped:.1f} ms")
