"""`chronovisor clockcheck`: the places that it reads, what it answers, and what it refuses."""

from __future__ import annotations

import json
import os
import platform
import pty
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.synthetic_console import INTERVAL, MadeUp

from chronovisor.cli import main
from chronovisor.cli.clockcheck.source import Splitter
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.files import SHIPPED
from chronovisor.report.clock_check.lines import LONGEST

COUNT = 60
LINES = list(MadeUp([300_000] * COUNT).lines())
CONSOLE = b"".join(line + b"\r\n" for line, _ in LINES)
BACK = MadeUp([300_000] * 120, steps={60: -50_000_000})


def stamped(made: MadeUp, style: Callable[[int], bytes] = lambda at: b"@%d" % at) -> bytes:
    return b"".join(b"%s %s\n" % (style(at), line) for line, at in made.lines())


def answer(
    capsys: pytest.CaptureFixture[str], *arguments: str, status: ExitStatus = ExitStatus.OK
) -> dict[str, Any]:
    assert main(["clockcheck", "--json", *arguments]) == status
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs the program for x86-64")
def test_a_guest_is_run_and_its_log_says_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log, picture = tmp_path / "log", tmp_path / "clocks.png"
    command = [str(SHIPPED / "clockcheck" / "x86-64"), "seconds=1", "interval=20"]
    # This machine may be busy: nothing is said here about its delays.
    patient = ["--allowance", "100", "--step", "1000", "--late", "30000", "--silence", "30"]
    live = answer(capsys, *patient, "--log", str(log), "--picture", str(picture), "--", *command)
    assert live["finished"]
    assert live["samples"] + live["timers"]["skipped"] >= 50
    assert [rate["clock"] for rate in live["rates"]] == ["mono", "raw", "boot", "real", "tb"]
    assert answer(capsys, *patient, str(log)) == live
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "style", [lambda at: b"@%d" % at, lambda at: b"%d.%09d" % divmod(at, 10**9)], ids=["ours", "ts"]
)
def test_a_step_in_a_log_is_a_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, style: Callable[[int], bytes]
) -> None:
    log = tmp_path / "log"
    log.write_bytes(stamped(BACK, style))
    found = answer(capsys, str(log), status=ExitStatus.CLOCK_FAULT)
    (step,) = found["steps"]
    assert step["ns"]["low"] <= -50_000_000 <= step["ns"]["high"]
    assert step["seconds"] == pytest.approx(60 * INTERVAL / 1e9, abs=0.2)
    assert main(["clockcheck", str(log)]) == ExitStatus.CLOCK_FAULT
    told = capsys.readouterr().out
    assert f"{step['ns']['low'] / 1e6:+.3f} to {step['ns']['high'] / 1e6:+.3f}" in told
    assert told.endswith("faults: 1 step against the host's clock\n")
    # A step that the user does not care for is none.
    assert answer(capsys, "--step", "100", str(log))["steps"] == []


def test_a_console_without_times_is_checked_for_what_the_guest_saw(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(CONSOLE)
    assert main(["clockcheck", str(log)]) == ExitStatus.OK
    assert "no times of arrival" in capsys.readouterr().out


def fifo(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path), lambda: path.write_bytes(CONSOLE) and None


def terminal(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    log, last = tmp_path / "log", LINES[-1][0] + b"\n"

    def write() -> None:
        # A terminal holds some KiB, and what is written before it is read raw may be altered.
        while termios.tcgetattr(theirs)[3] & termios.ICANON:
            time.sleep(0.01)
        for begin in range(0, len(CONSOLE), 512):
            os.write(ours, CONSOLE[begin : begin + 512])
        # What nobody has read when it is closed is lost, and what is on its way cannot be seen here.
        while not log.read_bytes().endswith(last):
            time.sleep(0.01)
        os.close(theirs)
        os.close(ours)

    return name, write


def server(family: socket.AddressFamily, address: object) -> tuple[socket.socket, Callable[[], None]]:
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.bind(address)
    listening.listen()

    def write() -> None:
        with listening, listening.accept()[0] as connection:
            connection.sendall(CONSOLE)

    return listening, write


def unix_socket(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    return f"unix:{tmp_path / 'socket'}", server(socket.AF_UNIX, str(tmp_path / "socket"))[1]


def socket_file(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    return str(tmp_path / "socket"), server(socket.AF_UNIX, str(tmp_path / "socket"))[1]


def tcp_socket(_: Path) -> tuple[str, Callable[[], None]]:
    listening, write = server(socket.AF_INET, ("127.0.0.1", 0))
    return f"tcp:127.0.0.1:{listening.getsockname()[1]}", write


@pytest.mark.parametrize("place", [fifo, terminal, unix_socket, socket_file, tcp_socket])
def test_consoles_are_read_wherever_they_are(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    place: Callable[[Path], tuple[str, Callable[[], None]]],
) -> None:
    name, write = place(tmp_path)
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    found = answer(capsys, "--log", str(tmp_path / "log"), name)
    writer.join()
    assert (found["samples"], found["torn"], found["missing"], found["finished"]) == (COUNT, 0, 0, True)


def test_the_standard_input_is_read() -> None:
    command = [Path(sys.executable).with_name("chronovisor"), "clockcheck", "--json", "-"]
    ended = subprocess.run(command, input=CONSOLE, capture_output=True, timeout=60)
    assert ended.returncode == ExitStatus.OK
    assert json.loads(ended.stdout)["samples"] == COUNT


def test_a_command_that_ends_early_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    script = f"import sys; sys.stdout.buffer.write({CONSOLE[:9000]!r}); sys.exit(3)"
    assert main(["clockcheck", "--", sys.executable, "-c", script]) == ExitStatus.FAILED
    assert "ended with status 3 before the guest's half was done" in capsys.readouterr().err


def test_a_command_that_does_not_end_is_ended(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = (
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); "
        f"os.write(1, {CONSOLE[:9000]!r}); time.sleep(600)"
    )
    found = answer(capsys, "--seconds", "1", "--", sys.executable, "-c", script)
    assert found["samples"] > 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_check_that_is_ended_ends_its_command(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    command = [
        Path(sys.executable).with_name("chronovisor"),
        "clockcheck",
        "--",
        sys.executable,
        "-c",
        script,
    ]
    with subprocess.Popen(command) as check:
        until = time.monotonic() + 60
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        check.terminate()
        try:
            assert check.wait(60) == 128 + 15
        finally:
            check.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_nothing_of_the_console_reaches_the_terminal_as_control_characters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    hostile = b"\x1b]0;owned\x07\x1b[2J soft lockup [red]\x9b31m\r\x08\n"
    log.write_bytes(CONSOLE + hostile * 40)
    assert main(["clockcheck", str(log)]) == ExitStatus.CLOCK_FAULT
    told = capsys.readouterr().out
    assert "[red]" in told
    assert all(character.isprintable() or character == "\n" for character in told)
    assert "and 30 more complaints of the kernel" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say where the console is"),
        (["/nowhere/at/all"], "/nowhere/at/all: No such file or directory"),
        (["tcp:127.0.0.1:1"], "tcp:127.0.0.1:1: nobody can be reached there"),
        (["tcp:no-port"], "address 'tcp:no-port'"),
        (["--", "/nowhere/at/all", "x"], "/nowhere/at/all cannot be run"),
        (["--seconds", "x", "-"], "seconds 'x'"),
        (["--picture", "/nowhere/at/all.png", "-"], "there is no such directory"),
        (["--log", "/nowhere/at/all", "-"], "/nowhere/at/all: No such file or directory"),
        (["--program", "/nowhere/at/all"], "/nowhere/at/all: No such file or directory"),
        (["--program", "x", "--arch", "vax"], "there is no program for 'vax'"),
        (["--program", "x", "-"], "read no console"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["clockcheck", *arguments]) == ExitStatus.USAGE
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_console_without_the_guests_half_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "log").write_bytes(b"[    0.0] Linux version 6.1\n")
    assert main(["clockcheck", str(tmp_path / "log")]) == ExitStatus.FAILED
    assert "does the guest run clockcheck?" in capsys.readouterr().err


@pytest.mark.parametrize("arch", ["ppc64le", "ppc64", "x86-64", "aarch64"])
def test_the_guests_half_is_handed_out(tmp_path: Path, arch: str) -> None:
    program, archive = tmp_path / "clockcheck", tmp_path / "initramfs"
    both = ["--program", str(program), "--initramfs", str(archive)]
    assert main(["clockcheck", *both, "--arch", arch]) == ExitStatus.OK
    assert program.read_bytes() == (SHIPPED / "clockcheck" / arch).read_bytes()
    assert os.access(program, os.X_OK)
    assert archive.read_bytes().startswith(b"070701")
    assert program.read_bytes() in archive.read_bytes()
    assert archive.stat().st_size < 20_000


@given(st.lists(st.binary(max_size=2 * LONGEST), max_size=8), st.integers(1, 3000))
def test_lines_do_not_depend_on_the_pieces_and_are_bounded(lines: list[bytes], size: int) -> None:
    console = b"\n".join(line.replace(b"\n", b" ") for line in lines)
    splitter = Splitter()

    def split() -> Iterator[tuple[bytes, bool]]:
        for begin in range(0, len(console), size):
            yield from splitter.split(console[begin : begin + size])
        yield from splitter.end()

    expected = console.split(b"\n")
    found = list(split())
    assert len(found) == len(expected) - (not expected[-1])
    for (text, cut), line in zip(found, expected, strict=False):
        assert text == line[:LONGEST].strip(b"\r")
        assert cut == (len(line) > LONGEST)
