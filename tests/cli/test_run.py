"""`chronovisor run` and `chronovisor offset` as commands: what they print and what they end with."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chronovisor.cli import COMMANDS, main
from chronovisor.cli.status import OF_ALL, ExitStatus
from chronovisor.isa.assembly import assemble
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import SHIPPED
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.wall_clock import WallClock
from chronovisor.timebase.clock import RealTime, VirtualTime

COMMAND = [sys.executable, "-c", "import sys; from chronovisor.cli import main; sys.exit(main())"]


def elf(path: Path, text: str, machine: int = 21, room: int = 0) -> str:
    """Write an ELF file that runs this text from 0x10000 on, in little-endian mode; `room` bytes at least."""
    code = assemble(text, 0x10000, little=True)
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    for size, value in (
        *((2, 2), (2, machine), (4, 1), (8, 0x10000), (8, 64), (8, 0), (4, 2), (2, 64), (2, 56), (2, 1)),
        *((2, 64), (2, 0), (2, 0), (4, 1), (4, 7), (8, 120), (8, 0x10000), (8, 0x10000)),
        *((8, len(code)), (8, max(len(code), room)), (8, 1)),
    ):
        header += value.to_bytes(size, "little")
    path.write_bytes(header + code)
    return str(path)


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], input=typed, capture_output=True, text=True, timeout=100)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """A command that comes to nothing: its status and its one line."""
    status = main(arguments)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("chronovisor: ")
    return status, printed.err


@pytest.mark.parametrize("image", ["hello-le.elf", "hello-be.elf"])
def test_a_guest_that_powers_off(image: str) -> None:
    done = run("run", image)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("decrementer interrupt on time\n")


@pytest.mark.parametrize(
    ("text", "seconds", "reason", "status"),
    [
        ("li32 r3, 0xf000\n lis r4, 2\n sc 1\n b .", "2", "timed out", ExitStatus.TIMED_OUT),
        ("lis r3, 0x7fff\n mtctr r3\n bctr", "60", "crash", ExitStatus.CRASH),
    ],
)
def test_the_end_as_json(text: str, seconds: str, reason: str, status: ExitStatus, tmp_path: Path) -> None:
    done = run("run", elf(tmp_path / "guest.elf", text), "--json", "--timeout", seconds)
    assert done.returncode == status
    ended = json.loads(done.stderr)
    assert (ended["reason"], ended["status"]) == (reason, status)
    assert ended["message"]


def test_statistics_at_the_end() -> None:
    done = run("run", "hello-le.elf", "--engine", "concrete", "--clock", "virtual", "--stats")
    rows = [line.split() for line in done.stderr.splitlines()]
    assert [row[:2] for row in rows[:5]] == [
        *(["chronovisor:", word] for word in ("TIER", "concrete", "threaded", "regions", "all"))
    ]
    assert rows[1][2:] == [rows[4][2], "100.0%"]
    assert rows[2][2:] == rows[3][2:] == ["0", "0.0%"]
    assert [row[1] for row in rows[5:]] == ["NATIVE", "handlers,", "regions"]

    as_json = run("run", "hello-le.elf", "--engine", "concrete", "--clock", "virtual", "--stats", "--json")
    counted, ended = map(json.loads, as_json.stderr.splitlines())
    assert counted["statistics"]["instructions"]["concrete"] == int(rows[4][2].replace(",", ""))
    assert counted["statistics"]["handlers"]["size"] == 0
    assert ended["reason"] == "power off"


def test_a_path_is_taken_before_a_shipped_name(tmp_path: Path) -> None:
    (tmp_path / "hello-le.elf").write_bytes(b"not this one")
    done = subprocess.run([*COMMAND, "run", "hello-le.elf"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == ExitStatus.BAD_IMAGE
    assert "not an ELF file" in done.stderr


@pytest.mark.parametrize(
    ("cpu", "more", "entered", "let_in"),
    [
        # The first thread of each core switches the timebase, three come in behind it.
        ("power8", [], {0, 1}, {(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)}),
        # Independent threads: each has a timebase of its own.
        ("power9", [], set(range(8)), set()),
        ("power9", ["--host-cores", "1"], set(range(4)), set()),
    ],
)
def test_eight_vcpus_on_cores_of_four_threads(
    cpu: str, more: list[str], entered: set[int], let_in: set[tuple[int, int]]
) -> None:
    options = ["--smp", "8,threads=4", "--cpu", cpu, "--clock", "virtual", "--trace-switch", *more]
    done = run("run", "demo-le.elf", *options, typed="tq")
    assert done.returncode == 0
    assert "watching, 8 vCPUs" in done.stdout
    assert "back=0" in done.stdout
    assert "back_between=0" in done.stdout
    trace = done.stderr
    assert {int(core) for core in re.findall(r"core (\d+) +timebase is the guest's", trace)} == entered
    secondaries = re.findall(r"core (\d+) +thread ([1-9]) let in", trace)
    assert {(int(core), int(thread)) for core, thread in secondaries} == let_in


def test_what_is_typed_reaches_the_guest_and_the_offset_its_clock() -> None:
    done = run("run", "demo-le.elf", "--clock", "virtual", "--tb-offset", "0x7f00000000000000", typed="tq")
    assert done.returncode == 0
    timebase = int(next(line for line in done.stdout.splitlines() if len(line) == 16), 16)
    assert 0x7F00_0000_0000_0000 <= timebase < 0x7F00_0001_0000_0000


def test_instructions_take_as_many_ticks_of_a_virtual_clock_as_are_asked_for() -> None:
    def timebase(ticks: int) -> int:
        done = run("run", "hello-le", "--clock", "virtual", "--ticks-per-instruction", str(ticks))
        assert done.returncode == 0
        found = re.search(r"timebase (0x[0-9a-f]+), and it goes forward", done.stdout)
        assert found is not None
        return int(found[1], 16)

    assert timebase(48) == 16 * timebase(3) > 48


def test_trace_switch_prints_entries_and_exits() -> None:
    done = run("run", "hello-le.elf", "--clock", "virtual", "--tb-offset", "0x5000000", "--trace-switch")
    assert done.returncode == 0
    lines = [line.split() for line in done.stderr.splitlines()]
    written = [int(words[4], 16) for words in lines if words[2:4] == ["mtspr", "TBU40"]]
    assert len(written) >= 4
    # Into the guest and out of it, in turn: 0x5000000 there and back, but for the ticks between.
    for there, back in zip(written[::2], written[1::2], strict=False):
        assert there >> 24 >= 5
        assert back >> 24 in ((there >> 24) - 5, (there >> 24) - 4)


@pytest.mark.parametrize(
    "text",
    [
        "lis r3,0x4000; sldi r3,r3,4; mtctr r3; bctr",
        "lis r3,0x4000; sldi r3,r3,4; ld r4,0(r3)",
        "lis r3,0x4000; sldi r3,r3,4; std r4,0(r3)",
        ".long 0",
    ],
    ids=["jumps away", "loads from nowhere", "stores to nowhere", "illegal instruction"],
)
def test_a_guest_that_crashes(tmp_path: Path, text: str) -> None:
    done = run("run", elf(tmp_path / "x.elf", text), "--timeout", "60")
    assert done.returncode == ExitStatus.CRASH
    assert done.stderr.startswith("chronovisor: the guest crashed: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_a_guest_that_loops_with_interrupts_off_is_ended_by_the_time_out(tmp_path: Path, clock: str) -> None:
    done = run("run", elf(tmp_path / "x.elf", "b ."), "--timeout", "0.3", "--clock", clock)
    assert done.returncode == ExitStatus.TIMED_OUT
    assert done.stderr == "chronovisor: the guest still ran after 0.3 s\n"


@contextlib.contextmanager
def killed_at_last(pid: int) -> Iterator[None]:
    """Kill a process that does not end within a minute, or whose test fails: none is left behind."""
    timer = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()


SAY_AND_LOOP = "li r3,0x58; li r4,0; li r5,1; lis r6,0x6100; sldi r6,r6,32; sc 1; b ."


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, ExitStatus.INTERRUPTED), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_a_guest_that_loops_is_ended_by_a_signal(
    tmp_path: Path, clock: str, number: int, status: int
) -> None:
    image = elf(tmp_path / "x.elf", SAY_AND_LOOP)
    process = subprocess.Popen(
        [*COMMAND, "run", image, "--clock", clock], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with killed_at_last(process.pid):
        assert process.stdout is not None
        assert process.stdout.read(1) == b"a"
        process.send_signal(number)
        _, err = process.communicate()
    assert (process.returncode, err) == (status, b"")


def test_on_a_terminal_keys_reach_the_guest_one_by_one() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(COMMAND[0], [*COMMAND, "run", "demo-le.elf"])
    seen = b""
    with killed_at_last(pid):
        while b"watching" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"t")
        while seen.count(b"\n") < 3:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x1d\x1d")
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == ExitStatus.QUIT
    assert len(seen.split()[-1]) == 16


def test_output_that_nobody_reads_ends_the_command_quietly(tmp_path: Path) -> None:
    again = "again: li r3,0x58; li r4,0; li r5,1; lis r6,0x6100; sldi r6,r6,32; sc 1; b again"
    process = subprocess.Popen(
        [*COMMAND, "run", elf(tmp_path / "x.elf", again)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"a"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_output_that_cannot_be_written_is_said_in_a_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "run", "hello-le.elf"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == ExitStatus.FAILED
    assert done.stderr == "chronovisor: what the guest prints cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "lots"], "memory size 'lots' is no size"),
        (["--memory", "12"], "too small"),
        (["--memory", "1048577"], "no multiple of 4096"),
        (["--memory", "512T"], "this machine has no"),
        (["--smp", "0"], "0 vCPUs"),
        (["--smp", "two"], "vCPUs 'two'"),
        (["--smp", "3,threads=2"], "do not fill"),
        (["--smp", "3,threads=3"], "3 threads a core"),
        (["--smp", "8,threads=8"], "power9 has 1 or 2 or 4"),
        (["--smp", "16,threads=16", "--cpu", "power8"], "16 threads a core"),
        (["--host-cores", "0"], "0 cores"),
        (["--cpu", "ppc970", "--tb-offset", "5"], "needs the TBU40 register"),
        (["--cpu", "ppc970", "--smp", "2,threads=2"], "a ppc970 has 1"),
        (["--tb-origin", "yesterday"], "timebase origin 'yesterday' is no number"),
        (["--tb-origin", "0x10000000000000000"], "too wide"),
        (["--tb-offset", "1.5"], "timebase offset '1.5' is no number"),
        (["--tb-offset", str(1 << 64)], "too wide"),
        (["--clock", "lunar"], "--clock"),
        (["--clock", "virtual", "--ticks-per-instruction", "0"], "--ticks-per-instruction"),
        (["--clock", "virtual", "--ticks-per-instruction", "1048577"], "--ticks-per-instruction"),
        (["--rtc", "utc"], "write base=utc"),
        (["--rtc", "base=2026-13-01"], "write utc, localtime, or a date"),
        (["--rtc", "base=localtime", "--clock", "virtual"], "in virtual time give a date"),
        (["--timeout", "soon"], "timeout 'soon'"),
        (["--timeout", "-1"], "timeout '-1'"),
        (["--timeout", "nan"], "timeout 'nan'"),
        (["--console", "file:x", "--log-size", "1023"], "at least 1024 bytes"),
        (["--config", "no.toml"], "no.toml: No such file"),
        (["--colour"], "No such option"),
    ],
)
def test_options_that_make_no_sense(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    status, line = refused(capsys, "run", "hello-le.elf", *arguments)
    assert status == ExitStatus.USAGE
    assert said in line


def test_images_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (SHIPPED / "hello-le.elf").read_bytes()
    files = {
        "none.elf": None,
        "empty.elf": b"",
        "text.elf": b"hello",
        "truncated.elf": whole[: len(whole) // 2],
        "32-bit.elf": whole[:4] + b"\1" + whole[5:],
    }
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        status, line = refused(capsys, "run", str(tmp_path / name))
        assert status == ExitStatus.BAD_IMAGE
        assert name in line
    for path in (str(tmp_path), elf(tmp_path / "x86.elf", "b .", machine=62)):
        assert refused(capsys, "run", path)[0] == ExitStatus.BAD_IMAGE


def test_no_command_shows_the_help_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitStatus.USAGE
    assert "Commands:" in capsys.readouterr().err
    assert refused(capsys, "fly")[0] == ExitStatus.USAGE


def test_the_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    named = set()
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        words = capsys.readouterr().out.split()
        told = {int(word) for word in words[words.index("status:") :] if word.isdigit()}
        assert told >= OF_ALL
        named |= told
    assert named == set(ExitStatus)


@pytest.mark.parametrize(
    ("base", "shown"),
    [("2001-02-03T04:05:06", "2001-02-03T04:05:06+00:00"), ("1999-12-31", "1999-12-31T00:00:00+00:00")],
)
def test_the_time_of_day_at_the_start(base: str, shown: str) -> None:
    clock = WallClock(VirtualTime())
    clock.start(base)
    assert clock.now().isoformat() == shown


def test_local_time_is_this_machines() -> None:
    clock = WallClock(RealTime())
    clock.start("localtime")
    assert abs(clock.now().replace(tzinfo=None) - datetime.now()) < timedelta(seconds=60)
    clock.start("utc")
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=60)


def test_offset_answers_what_the_kernel_makes_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["offset", "--guest-tb", "0x40003340", "--host-tb", "0x1000", "--elapsed", "0.001"]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["wanted"] == 0x40003340 + 512_000 - 0x1000
    assert answer["kernel"]["offset"] == 0x41000000
    assert answer["kernel"]["error_ticks"] == 0x41000000 - answer["wanted"]
    assert not answer["kernel"]["steps_back"]
    assert answer["nearest"]["offset"] == 0x40000000
    assert answer["nearest"]["steps_back"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "0x0000000041000000" in text
    assert "it would step back" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--guest-tb", "x", "--host-tb", "0"],
        ["--guest-tb", "0", "--host-tb", str(1 << 64)],
        ["--guest-tb", "0", "--host-tb", "0", "--elapsed", "-1"],
        ["--guest-tb", "0", "--host-tb", "0", "--elapsed", "a while"],
        ["--guest-tb", "0"],
    ],
)
def test_offset_of_what_is_no_time(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert refused(capsys, "offset", *arguments)[0] == ExitStatus.USAGE


def test_the_run_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from chronovisor.cli import main; main(['run', 'hello-le.elf']);"
        "assert not {'numpy', 'z3', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""


def test_time_out_of_a_guest_that_powers_off_first_is_not_waited_for() -> None:
    before = time.monotonic()
    assert run("run", "hello-le.elf", "--timeout", "600").returncode == 0
    assert time.monotonic() - before < 600


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give one image, as IMAGE or as --kernel FILE"),
        (("hello-le", "--kernel", "hello-le"), "give one image"),
        (
            ("--kernel", "packed"),
            "packed: this is not an ELF file but one that gzip compressed; unpack it first",
        ),
        (("--kernel", "efi"), "efi: this is not an ELF file but a program for EFI; give the vmlinux"),
        (("--kernel", "half"), "half: the file is truncated"),
        (("--kernel", "intel"), "intel: it is for X86_64, not for 64-bit Power"),
        (("--kernel", "nowhere"), "nowhere: No such file or directory"),
        (("--kernel", "folder"), "folder: this is a directory, not a regular file"),
        (("--kernel", "pipe"), "pipe: this is not a regular file"),
        (("--kernel", "loop"), "loop: Too many levels of symbolic links"),
        (("hello-le", "--memory", "64K"), "memory size 64K is too small: a guest needs at least 1M"),
        (("hello-le", "--initrd", "nowhere"), "nowhere: No such file or directory"),
        (("hello-le", "--initrd", "folder"), "folder: this is a directory, not a regular file"),
        (("hello-le", "--initrd", "pipe"), "pipe: this is not a regular file"),
        (("hello-le", "--initrd", "empty"), "the initial RAM disk is empty"),
        (
            ("hello-le", "--append", "x" * 2048),
            "the command line has 2048 characters; Linux reads 2047 at most",
        ),
        (
            ("hello-le", "--initrd", "large", "--memory", "1M"),
            "leaves no 2097152 bytes for the initial RAM disk",
        ),
    ],
)
def test_a_kernel_that_cannot_start_is_refused_in_a_line(
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\0")
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (tmp_path / "empty").touch()
    (tmp_path / "efi").write_bytes(b"MZ".ljust(4096, b"\0"))
    whole = (SHIPPED / "hello-le.elf").read_bytes()
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    elf(tmp_path / "intel", "b .", machine=62)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    # Root can read every file, so what cannot be opened is a link to itself.
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    status, line = refused(capsys, "run", *arguments)
    assert status in (ExitStatus.USAGE, ExitStatus.BAD_IMAGE)
    assert reason in line


@pytest.mark.parametrize(
    ("words", "memory"),
    [
        (("image",), "64M"),
        (("--kernel", "image"), "512M"),
        (("--kernel", "image", "--memory", "96M"), "96M"),
    ],
)
def test_a_kernel_has_the_memory_that_linux_needs(
    words: tuple[str, ...], memory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def boot(self: Host, image: str, memory: str, *others: object, **named: object) -> Guest:
        raise MachineError(f"{image} gets {memory}")

    monkeypatch.setattr(Host, "boot", boot)
    assert refused(capsys, "run", *words) == (ExitStatus.USAGE, f"chronovisor: image gets {memory}\n")


def test_a_kernel_that_has_too_little_memory_to_say_so(tmp_path: Path) -> None:
    crash = "lis r3, 0x7fff\n mtctr r3\n bctr"
    linux, small = elf(tmp_path / "vmlinux", crash, room=40 << 20), elf(tmp_path / "small", crash)
    for words, is_told in (
        (("--kernel", linux, "--memory", "48M"), True),
        (("--kernel", linux, "--memory", "96M"), False),
        (("--kernel", small, "--memory", "16M"), False),
        ((linux, "--memory", "48M"), False),
    ):
        done = run("run", *words)
        assert done.returncode == ExitStatus.CRASH
        assert ("leaves 7 MiB of the guest's memory" in done.stderr) == is_told
