"""The harness itself: what it says when QEMU does not do as it should, and that nothing is left behind."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from real_kvm.machine import QEMU, Machine, MachineError

NOTHING = Path("/nonexistent")
needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason="needs Debian's qemu-system-ppc")


def stand_in(script: str) -> tuple[str, ...]:
    """A program that takes QEMU's arguments and does what the script says."""
    return (sys.executable, "-c", script)


def test_no_qemu() -> None:
    with pytest.raises(MachineError, match="cannot be started"):
        Machine(NOTHING, NOTHING, qemu=("/nonexistent/qemu",)).start()


@pytest.mark.oracle
@needs_qemu
def test_qemu_that_does_not_start() -> None:
    with Machine(NOTHING, NOTHING) as machine, pytest.raises(MachineError) as raised:
        machine.start(limit=30)
    assert "QEMU ended (status 1)" in str(raised.value)
    assert "Failed to load ELF" in str(raised.value)


def test_a_machine_that_hangs_shows_its_last_lines_and_is_killed() -> None:
    hanging = stand_in("import time; print('one\\ntwo', flush=True); time.sleep(1000)")
    with Machine(NOTHING, NOTHING, qemu=hanging) as machine:
        with pytest.raises(MachineError) as raised:
            machine.start(limit=3)
        assert "did not answer in 3 s" in str(raised.value)
        assert str(raised.value).endswith("one\n    two")
        process = machine._process
        assert process is not None
        machine.close(patience=0.1)
    assert process.poll() is not None


def test_a_machine_that_ends_in_the_middle() -> None:
    ending = stand_in("print('@@answer {\"answer\": \"ready\"}', flush=True); input(); print('panic')")
    with Machine(NOTHING, NOTHING, qemu=ending) as machine:
        machine.start(limit=30)
        with pytest.raises(MachineError, match="QEMU ended") as raised:
            machine.call("anything:at_all", limit=30)
        assert "panic" in str(raised.value)


def test_what_goes_wrong_inside_is_shown_with_its_traceback() -> None:
    script = (
        'print(\'@@answer {"answer": "ready"}\', flush=True); input();'
        'print(\'@@answer {"failed": "Traceback: oh no"}\', flush=True); input()'
    )
    with Machine(NOTHING, NOTHING, qemu=stand_in(script)) as machine:
        machine.start(limit=30)
        with pytest.raises(MachineError, match="oh no"):
            machine.call("anything:at_all", limit=30)
