"""Ctrl-C while a command is still loading its modules."""

from __future__ import annotations

import subprocess
import sys

import pytest

from chronovisor.cli.status import ExitStatus

PROGRAM = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from chronovisor.{package} import main
sys.exit(main())
"""


def interrupted(package: str, module: str, *arguments: str) -> tuple[int, str]:
    """What a command ends with, and says, if Ctrl-C comes when it begins to load a module."""
    program = PROGRAM.format(package=package, module=module)
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )
    assert not process.stdout, "the module was not loaded"
    return process.returncode, process.stderr


@pytest.mark.parametrize("module", ["chronovisor.machine", "typer", "chronovisor.engine.concrete"])
def test_ctrl_c_ends_a_command_that_still_loads_without_a_word(module: str) -> None:
    assert interrupted("cli", module, "run", "hello-le.elf") == (ExitStatus.INTERRUPTED, "")


def test_ctrl_c_ends_a_loading_qemu_command_as_qemu() -> None:
    said = "chronovisor-qemu: terminating on signal 2\n"
    assert interrupted("cli.qemu", "chronovisor.machine", "-version") == (0, said)
