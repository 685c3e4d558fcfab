"""A disk of format qcow2, through qemu-nbd: its contents, its lock, and what it may be made of."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vio_driver import DATA, Driver, read_16, write_16

from chronovisor.machine.disk import DiskOption
from chronovisor.machine.errors import MachineError
from chronovisor.machine.nbd import NbdClient
from chronovisor.machine.qcow2_image import Qcow2Image

pytestmark = pytest.mark.oracle
SIZE = 8 << 20


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    return path


@pytest.fixture
def driver(path: Path) -> Iterator[Driver]:
    driver = Driver(path, "format=qcow2")
    driver.begin()
    yield driver
    driver.close()


def contents(path: Path) -> bytes:
    qemu_img("check", "-q", path)
    raw = path.with_suffix(".raw")
    qemu_img("convert", "-O", "raw", path, raw)
    return raw.read_bytes()


def test_sectors_are_where_qemu_finds_them(driver: Driver, path: Path) -> None:
    chance = random.Random(5)
    expected = bytearray(SIZE)
    for _ in range(30):
        count = chance.choice((1, 8, 200, 2048))
        first = chance.randrange(SIZE // 512 - count)
        data = chance.randbytes(512 * count)
        driver.memory.write(DATA, data)
        # In two pieces.
        pieces = [(DATA, 100), (DATA + 100, len(data) - 100)]
        assert driver.command(write_16(first, count), out=pieces)[0] == 0
        expected[512 * first : 512 * (first + count)] = data
        first = chance.randrange(SIZE // 512 - 64)
        assert driver.data(read_16(first, 64), 64 * 512) == expected[512 * first : 512 * (first + 64)]
    assert driver.command(bytes([0x35, *bytes(9)]))[0] == 0
    driver.close()
    assert contents(path) == expected


def test_one_guest_has_it(driver: Driver, path: Path) -> None:
    other = Qcow2Image(DiskOption(str(path), format="qcow2"))
    with pytest.raises(MachineError, match="it is in use by another guest"):
        other.lock()
    driver.bus.give_up()
    other.lock()
    other.close()
    driver.bus.take()
    assert driver.data(read_16(0, 1), 512) == bytes(512)


def test_a_read_only_image_is_shared_and_not_written(path: Path) -> None:
    drivers = [Driver(path, "ro", "format=qcow2") for _ in range(2)]
    for driver in drivers:
        driver.begin()
        assert driver.data(read_16(0, 1), 512) == bytes(512)
        assert driver.command(write_16(0, 1), out=[(DATA, 512)]) == (2, (7, 0x27, 0))
        driver.close()


def test_a_backing_file_beside_it_is_read(path: Path) -> None:
    base = path.with_name("base")
    base.write_bytes(random.Random(1).randbytes(SIZE))
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", path)
    driver = Driver(path, "format=qcow2")
    driver.begin()
    assert driver.data(read_16(9, 8), 4096) == base.read_bytes()[9 * 512 :][:4096]
    driver.close()


def outside(path: Path, tmp: Path) -> Path:
    elsewhere = tmp / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "base").write_bytes(bytes(SIZE))
    return elsewhere / "base"


@pytest.mark.parametrize("how", ["absolute", "dots", "link", "second", "data file", "protocol"])
def test_what_lies_elsewhere_is_refused(path: Path, tmp_path: Path, how: str) -> None:
    directory = tmp_path / "here"
    directory.mkdir()
    image, base = directory / "image", outside(path, tmp_path)
    create = ["create", "-q", "-f", "qcow2"]
    if how == "absolute":
        qemu_img(*create, "-b", base, "-F", "raw", image)
    elif how == "dots":
        qemu_img(*create, "-b", "../elsewhere/base", "-F", "raw", image)
    elif how == "link":
        (directory / "link").symlink_to(base)
        qemu_img(*create, "-b", "link", "-F", "raw", image)
    elif how == "second":
        qemu_img(*create, "-b", base, "-F", "raw", directory / "first")
        qemu_img(*create, "-b", "first", "-F", "qcow2", image)
    elif how == "data file":
        qemu_img(*create, "-o", f"data_file={base}", image, SIZE)
    else:
        qemu_img(*create, "-u", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", image, SIZE)
    with pytest.raises(MachineError, match="which is not in the image's directory"):
        Qcow2Image(DiskOption(str(image), format="qcow2"))


def test_what_is_no_image_is_refused_in_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(1 << 20))
    with pytest.raises(MachineError, match=r"^disk .*other: .*not in qcow2 format.*$"):
        Qcow2Image(DiskOption(str(other), format="qcow2"))
    os.truncate(path, 100)
    with pytest.raises(MachineError, match=r"^disk .*: .+$"):
        Qcow2Image(DiskOption(str(path), format="qcow2"))
    with pytest.raises(MachineError, match="No such file"):
        Qcow2Image(DiskOption(str(path.with_name("gone")), format="qcow2"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="needs qemu-img and qemu-nbd: install Debian's qemu-utils"):
        Qcow2Image(DiskOption(str(path), format="qcow2"))


def test_a_process_that_ends_is_an_error_of_the_medium(driver: Driver) -> None:
    assert isinstance(driver.adapter.file, Qcow2Image)
    process = driver.adapter.file._process
    assert process is not None
    process.kill()
    for _ in range(2):
        assert driver.command(read_16(0, 1), [(DATA, 512)]) == (2, (3, 0x11, 0))
    (told,) = driver.troubles
    assert "reading failed" in told


def test_the_image_is_free_once_the_host_process_was_killed(path: Path) -> None:
    program = f"""
import sys, time
from chronovisor.machine.disk import DiskOption
from chronovisor.machine.nbd import NbdClient
from chronovisor.machine.qcow2_image import Qcow2Image
image = Qcow2Image(DiskOption({str(path)!r}, format="qcow2"))
image.lock()
image.write(4096, [memoryview(b"x" * 512)])
image.flush()
image.write(8192, [memoryview(b"y" * 512)])
print("written", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 60
    while True:
        image = Qcow2Image(DiskOption(str(path), format="qcow2"))
        try:
            image.lock()
            break
        except MachineError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        finally:
            image.close()
    found = contents(path)
    assert (found[4096:4608], found[8192:8704]) == (b"x" * 512, b"y" * 512)


def test_a_server_that_talks_rubbish_is_an_error() -> None:
    chance = random.Random(2)
    hello = b"NBDMAGIC" + b"IHAVEOPT" + b"\0\1"
    reply = (0x3_E889_0455_65A9).to_bytes(8, "big") + bytes(3) + b"\7"
    for _ in range(200):
        here, there = socket.socketpair()
        there.sendall(chance.choice((b"", hello, hello + reply)) + chance.randbytes(chance.randrange(99)))
        there.shutdown(socket.SHUT_WR)
        with here, there, pytest.raises(OSError, match=r"NBD|reset"):
            NbdClient(here)
