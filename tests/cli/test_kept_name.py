"""A guest keeps its name over a move on one machine."""

import re
import time
from pathlib import Path

from processes import LIMIT, Machine, Process

from chronovisor.cli.status import ExitStatus


def waits(machine: Machine, place: Path) -> Process:
    machine.processes.append(process := Process("receive", f"unix:{place}", *LIMIT))
    assert re.fullmatch(r"chronovisor: guest-\d+ waits at \S+\n", process.error_line())
    return process


def test_a_guest_keeps_its_name(machine: Machine, tmp_path: Path) -> None:
    source, away = machine.run("alice"), waits(machine, tmp_path / "door")
    assert machine.does("migrate", "alice", f"unix:{tmp_path / 'door'}")[0] == ExitStatus.OK
    assert source.ends() == ExitStatus.OK
    assert "alice came" in away.error_line()
    deadline = time.monotonic() + 60
    while [guest["name"] for guest in machine.asks("ps")] != ["alice"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert machine.asks("history", "alice")
    assert machine.does("stop", "alice")[0] == ExitStatus.OK
    assert away.ends() == ExitStatus.ENDED
    assert machine.asks("ps") == []
