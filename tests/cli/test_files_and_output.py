"""What the commands do with files that are not for them, and with outputs that take no more."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from chronovisor.cli import main
from chronovisor.cli.output import printable
from chronovisor.cli.status import ExitStatus
from chronovisor.machine import files
from chronovisor.machine.files import SHIPPED, FileError, find_image, read_regular

COMMAND = [sys.executable, "-m", "chronovisor"]
READERS = {
    "run": ["run"],
    "scan": ["scan"],
    "prove": ["prove", "--from", "0", "--to", "4", "--property", "timebase-add=r3", "--code"],
    "dtl": ["dtl"],
    "inspect": ["inspect"],
}


@pytest.mark.parametrize("command", READERS)
def test_only_regular_files_are_read(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "LARGEST", 1000)
    for path in ("/dev/zero", "/dev/full", str(tmp_path / "pipe"), str(tmp_path)):
        status = main([*READERS[command], path])
        printed = capsys.readouterr()
        assert status in (ExitStatus.USAGE, ExitStatus.BAD_IMAGE)
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert f"{path}: " in printed.err
        assert "not a regular file" in printed.err


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(FileError, match="1099511627776 bytes"):
        read_regular(path)


def test_shipped_guests_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_image("hello-le") == find_image("hello-le.elf") == SHIPPED / "hello-le.elf"
    assert find_image("hello") == Path("hello")
    assert find_image("./hello-le.elf") == Path("hello-le.elf")
    assert main(["scan", "hello-le.elf", "--no-prove"]) == ExitStatus.OK
    assert "of DEC" in capsys.readouterr().out


def test_every_shipped_guest_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guests", "--json"]) == ExitStatus.OK
    guests = json.loads(capsys.readouterr().out)
    assert {image for guest in guests for image in guest["images"]} == {p.name for p in SHIPPED.glob("*.elf")}
    assert main(["guests"]) == ExitStatus.OK
    assert "power off" in capsys.readouterr().out


def with_symbol(name: bytes) -> bytes:
    """An ELF file with one instruction, `mtspr DEC,r3`, and a symbol of this name at it."""
    code, symbols = (
        struct.pack("<I", 0x7C7603A6),
        b"\0" * 24 + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0x1000, 4),
    )
    strings, names = b"\0" + name + b"\0", b"\0.text\0"
    body, at = b"", 64
    headers = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
    for kind, flags, address, data, link, size in (
        (1, 6, 0x1000, code, 0, 0),
        (2, 0, 0, symbols, 3, 24),
        (3, 0, 0, strings, 0, 0),
        (3, 0, 0, names, 0, 0),
    ):
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ", kind == 1, kind, flags, address, at + len(body), len(data), link, 1, 4, size
            )
        )
        body += data
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, 21, 1, 0x1000, 0, at + len(body), 2, 64, 56, 0, 64, 5, 4)
    return ident + header + body + b"".join(headers)


def test_a_symbols_name_cannot_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "code.elf"
    path.write_bytes(with_symbol(b"evil\x1b[2Jname\x07"))
    assert main(["scan", str(path)]) == ExitStatus.OK
    told = capsys.readouterr().out
    assert "DEC is written at evil\\x1b[2Jname\\x07\n" in told
    prove = [
        "prove",
        "--code",
        str(path),
        "--from",
        "0x1000",
        "--to",
        "0x1004",
        "--property",
        "timebase-add=r3",
    ]
    assert main(prove) == ExitStatus.FAILED
    told += capsys.readouterr().out
    assert told.count("evil\\x1b") > 1
    assert all(character.isprintable() or character == "\n" for character in told)
    # Nor can a name on the command line, in an error.
    assert main(["scan", "no\x1b[2J"]) == ExitStatus.BAD_IMAGE
    assert "\x1b" not in capsys.readouterr().err


def test_what_is_printable() -> None:
    assert printable("a ± b") == "a ± b"
    assert printable("\x1b\x9b\u202e\udc80\n") == "\\x1b\\x9b\\u202e\\udc80\\n"


OUTPUTS = [
    ["ps"],
    ["guests"],
    ["--version"],
    ["run", "--help"],
    ["offset", "--guest-tb", "0", "--host-tb", "1"],
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_an_output_that_is_full(arguments: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"CHRONOVISOR_RUN_DIR": str(tmp_path / "run")}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == ExitStatus.FAILED
    assert done.stderr == "chronovisor: the output cannot be written: No space left on device\n"


def test_an_output_that_nobody_reads(tmp_path: Path) -> None:
    here, there = os.pipe()
    os.close(here)
    done = subprocess.run([*COMMAND, "guests"], stdout=there, stderr=subprocess.PIPE, text=True)
    os.close(there)
    assert (done.returncode, done.stderr) == (ExitStatus.FAILED, "")


def test_an_encoding_that_lacks_characters(tmp_path: Path) -> None:
    code = "import sys\nfrom chronovisor.cli.output import set_up\nset_up()\nprint('\\xb1 5 \\u20ac \\udc80')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("+- 5 \\u20ac \\udc80\n", "")
    # The help has characters that ASCII lacks.
    done = subprocess.run([*COMMAND, "run", "--help"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (ExitStatus.OK, "")


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in (
        (["run", "nothing.elf"], ExitStatus.BAD_IMAGE),
        (["ps", "surplus"], ExitStatus.USAGE),
        (["reg", "nobody"], ExitStatus.USAGE),
    ):
        assert main([*arguments, "--json"]) == status
        printed = capsys.readouterr()
        answer = json.loads(printed.err)
        assert (answer["status"], printed.out) == (status, "")
        assert answer["error"]


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("chronovisor ")
    assert (done.returncode, done.stderr) == (0, "")
    assert shutil.which("chronovisor", path=Path(sys.executable).parent)
