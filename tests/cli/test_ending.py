"""`chronovisor stop` and `chronovisor kill`."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from processes import COMMAND, Machine

from chronovisor.cli.status import ExitStatus


def test_a_guest_is_stopped_by_its_name(machine: Machine) -> None:
    process = machine.run("alice")
    assert machine.asks("stop", "alice") == {"stopped": "alice"}
    assert process.ends() == ExitStatus.ENDED
    assert process.errors == "chronovisor: the guest was stopped\n"
    machine.fails(ExitStatus.USAGE, "no guest named alice", "stop", "alice")
    machine.fails(ExitStatus.USAGE, "no guest named alice", "kill", "alice")


def test_a_paused_guest_can_be_stopped(machine: Machine) -> None:
    process = machine.run("alice")
    assert machine.does("pause", "alice")[0] == ExitStatus.OK
    assert machine.does("stop", "alice") == (ExitStatus.OK, "alice was stopped\n", "")
    assert process.ends() == ExitStatus.ENDED


def test_a_guest_is_killed(machine: Machine) -> None:
    process = machine.run("alice")
    assert machine.does("kill", "alice") == (ExitStatus.OK, "alice was killed\n", "")
    assert process.ends() == ExitStatus.KILLED
    assert machine.asks("ps") == []


def test_a_process_that_does_not_answer_is_killed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chronovisor.cli.kill._PATIENCE", 0.5)
    process = machine.run("alice")
    os.kill(process.pid, signal.SIGSTOP)
    assert machine.does("kill", "alice") == (ExitStatus.OK, "alice was killed\n", "")
    assert process.ends() == -signal.SIGKILL


def test_a_receiver_that_waits_can_be_stopped_and_killed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, _ = machine.receive("bob")
    assert machine.does("stop", "bob") == (ExitStatus.OK, "bob was stopped\n", "")
    assert process.ends() == ExitStatus.ENDED
    process, _ = machine.receive("bob")
    monkeypatch.setattr("chronovisor.cli.kill._PATIENCE", 0.5)
    assert machine.does("kill", "bob")[0] == ExitStatus.OK
    assert process.ends() == -signal.SIGKILL


def test_ctrl_c_says_that_a_move_goes_on(machine: Machine, tmp_path: Path) -> None:
    machine.run("alice")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        command = subprocess.Popen(
            [*COMMAND, "migrate", "alice", f"unix:{tmp_path / 'silent'}"], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while machine.state("alice") != "moving":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=60)
        assert command.returncode == ExitStatus.INTERRUPTED
        line = "chronovisor: the move of alice goes on; `chronovisor migrate alice --cancel` cancels it\n"
        assert told == line
        machine.fails(ExitStatus.USAGE, "alice", "stop", "alice")
        assert machine.does("migrate", "alice", "--cancel")[0] == ExitStatus.OK
    assert machine.does("stop", "alice")[0] == ExitStatus.OK
