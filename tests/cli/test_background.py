"""Guests in the background: `run --detach`, `console`, `wait`, and the log of the console."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import COMMAND, Machine
from test_keys import OnTerminal, until_guest_reads

from chronovisor.cli import main
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.control import ProcessEndedError
from chronovisor.machine.guest_records import GuestRecord
from chronovisor.machine.run_directory import ENVIRONMENT


def test_a_guest_in_the_background(machine: Machine) -> None:
    told = machine.run_detached("alice")
    assert machine.state("alice") == "running"
    machine.fails(ExitStatus.TIMED_OUT, "still runs", "wait", "alice", "--timeout", "0.1")
    waiting = machine.start_command("wait", "alice", "--json")
    watching = machine.start_command("console", "alice", "--read-only")
    typing = machine.start_command("console", "alice")
    assert typing.line().startswith("guest: watching")
    assert watching.line().startswith("guest: watching")
    machine.fails(ExitStatus.USAGE, "already", "console", "alice")
    typing.type("t")
    timebase = typing.line()
    assert int(timebase, 16)
    assert watching.line() == timebase
    taking_over = machine.start_command("console", "alice", "--force")
    assert taking_over.line() == timebase
    assert typing.ends() == ExitStatus.OK
    taking_over.type("q")
    report = taking_over.line()
    assert report.startswith("guest: readings=")
    assert watching.line() == report
    for process in (taking_over, watching):
        assert (process.ends(), process.errors) == (ExitStatus.OK, "")
    end = {"reason": "power off", "message": "the guest powered off", "status": 0}
    assert waiting.ends() == ExitStatus.OK
    assert json.loads(waiting.errors) == end
    # It is known when it is over, too, until another one has its name.
    status, _, err = machine.does("wait", "alice", "--json")
    assert (status, json.loads(err)) == (ExitStatus.OK, end)
    logged = Path(told["log"]).read_text().splitlines()
    assert logged[1:-1] == [timebase.rstrip(), report.rstrip()]
    assert json.loads(logged[-1]) == end


def test_how_a_guest_in_the_background_ends(machine: Machine) -> None:
    for name, command, signalled, status in (
        ("carl", "stop", None, ExitStatus.ENDED),
        ("dora", None, signal.SIGTERM, ExitStatus.ENDED),
        ("fred", None, signal.SIGKILL, ExitStatus.KILLED),
    ):
        pid = machine.run_detached(name)["pid"]
        waiting = machine.start_command("wait", name)
        if signalled:
            os.kill(pid, signalled)
        else:
            machine.asks(str(command), name)
        assert waiting.ends() == status, (name, waiting.errors)
        assert machine.does("wait", name)[0] == status


def test_a_guest_moves_and_is_restored_in_the_background(machine: Machine, tmp_path: Path) -> None:
    machine.run_detached("alice")
    bob = machine.detach("receive", f"unix:{tmp_path}/bob", "--name", "bob", "--once")
    assert machine.does("migrate", "alice", bob["address"])[0] == ExitStatus.OK
    status, _, err = machine.does("wait", "alice")
    assert (status, "went to" in err) == (ExitStatus.OK, True)
    machine.asks("snapshot", "bob", str(tmp_path / "saved"))
    machine.detach("restore", str(tmp_path / "saved"), "--name", "carl")
    for name in ("bob", "carl"):
        typing = machine.start_command("console", name)
        typing.type("q")
        assert "guest: readings" in typing.line() + typing.line()
        assert typing.ends() == machine.does("wait", name)[0] == ExitStatus.OK


def test_one_that_does_not_begin_says_why(machine: Machine, tmp_path: Path) -> None:
    machine.run_detached("alice")
    for words, status, *arguments in (
        ("a guest named alice runs already", ExitStatus.USAGE, "hello-le", "--name", "alice"),
        ("No such file", ExitStatus.BAD_IMAGE, "nothing.elf", "--name", "bob"),
    ):
        command = [*COMMAND, "run", "--detach", "--engine", "concrete", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("chronovisor: ")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr
    machine.fails(ExitStatus.USAGE, "no guest named bob", "wait", "bob")
    machine.fails(ExitStatus.USAGE, "no guest named bob", "console", "bob")


def test_a_terminal_attaches_and_detaches(machine: Machine) -> None:
    machine.run_detached("alice")
    terminal = OnTerminal("console", "alice")
    terminal.until(b"Ctrl-] twice detaches")
    terminal.until(b"watching")
    terminal.press(b"t")
    terminal.until(b"\r\n")
    terminal.press(b"\x1d\x1d")
    assert terminal.process.wait(60) == ExitStatus.OK
    assert terminal.settings_are_as_before()
    terminal.close()
    assert machine.state("alice") == "running"


def test_a_guest_on_a_terminal_keeps_its_keys(machine: Machine) -> None:
    run = OnTerminal("run", "demo-le", "--name", "alice", "--engine", "concrete")
    until_guest_reads(run)
    run.until(b"watching")
    machine.fails(ExitStatus.USAGE, "on the terminal of its run", "console", "alice")
    machine.fails(ExitStatus.USAGE, "on the terminal of its run", "console", "alice", "--force")
    watching = machine.start_command("console", "alice", "--read-only")
    assert "watching" in watching.line()
    run.press(b"t")
    assert int(watching.line(), 16)
    machine.asks("stop", "alice")
    assert watching.ends() == ExitStatus.OK
    run.close()


def test_a_client_that_does_not_read_holds_nobody_up(machine: Machine, tmp_path: Path) -> None:
    machine.run_detached("alice", "--log-size", "1K")
    silent = machine.start_command("console", "alice", "--read-only")
    assert "watching" in silent.line()
    os.kill(silent.pid, signal.SIGSTOP)
    typing = machine.start_command("console", "alice")
    for _ in range(200):
        typing.type("t")
    typing.type("q")
    deadline = time.monotonic() + 60
    while machine.asks("ps"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert typing.ends() == ExitStatus.OK
    os.kill(silent.pid, signal.SIGCONT)
    assert silent.ends() == ExitStatus.OK
    record = tmp_path / "run" / "guests" / "alice"
    sizes = {path.name: path.stat().st_size for path in record.glob("console.log*")}
    assert set(sizes) == {"console.log", "console.log.1"}
    assert max(sizes.values()) <= 512
    assert "guest: readings=" in "".join((record / name).read_text() for name in sorted(sizes, reverse=True))


def test_how_a_guest_ended_is_known_although_its_process_was_killed_behind_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def ended(*_: object, **__: object) -> None:
        raise ProcessEndedError("alice: its process ended before it answered")

    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr("chronovisor.cli.wait.ask", ended)
    assert main(["wait", "alice"]) == ExitStatus.KILLED
    record = GuestRecord("alice")
    record.begin()
    assert main(["wait", "alice"]) == ExitStatus.KILLED
    record.keep_end({"reason": "power off", "message": "the guest powered off", "status": 0})
    assert main(["wait", "alice"]) == ExitStatus.OK
    assert "killed" in capsys.readouterr().err


def test_a_guest_in_the_foreground_is_not_waited_for_by_a_former_ones_record(machine: Machine) -> None:
    machine.run_detached("alice")
    machine.asks("stop", "alice")
    assert machine.does("wait", "alice")[0] == ExitStatus.ENDED
    assert machine.does("run", "hello-le.elf", "--name", "alice")[0] == ExitStatus.OK
    machine.fails(ExitStatus.USAGE, "no guest named alice", "wait", "alice")
