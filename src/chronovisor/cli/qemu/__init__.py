"""`chronovisor-qemu`: QEMU's command line, for what Chronovisor has. It becomes a command line of `run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from chronovisor.cli import begin_process

PROGRAM: Final = "chronovisor-qemu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run QEMU's command line and return QEMU's exit status: 1 if the guest cannot start or crashes."""
    if arguments is None:
        begin_process()
    try:
        # Imported here, so that Ctrl-C has its answer from the beginning.
        from chronovisor.cli.qemu.command import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return ended_by(2)


def ended_by(signal: int) -> int:
    """Say that a signal ended the program, and return QEMU's exit status for that."""
    print(f"{PROGRAM}: terminating on signal {signal}", file=sys.stderr)
    return 0
