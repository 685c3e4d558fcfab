"""A disk as a guest's driver sees it: SRP requests, SCSI commands, and what becomes of the file."""

from __future__ import annotations

import errno
import os
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vio_driver import DATA, MEMORY, QUEUE, QUEUE_SIZE, Driver, read_16, unit, write_16

from chronovisor.machine.disk import DiskOption
from chronovisor.machine.disk_file import DiskFile
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.machine.vio.crq import Queue
from chronovisor.papr.hcalls import Status

SECTORS = 4096
ILLEGAL, OUT_OF_RANGE = (5, 0x24, 0), (5, 0x21, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(512 * SECTORS))
    return path


@pytest.fixture
def driver(path: Path) -> Iterator[Driver]:
    driver = Driver(path)
    driver.begin()
    yield driver
    driver.close()


def test_a_disk_says_what_it_is(driver: Driver) -> None:
    inquiry = driver.data(bytes([0x12, 0, 0, 0, 36, 0]), 36)
    assert inquiry[0] == 0
    assert inquiry[8:16] == b"CHRONVSR"
    assert driver.data(bytes([0x25]), 8) == struct.pack(">II", SECTORS - 1, 512)
    sixteen = driver.data(bytes([0x9E, 0x10, *bytes(8), 0, 0, 0, 32]), 32)
    assert struct.unpack_from(">QI", sixteen) == (SECTORS - 1, 512)
    pages = driver.data(bytes([0x12, 1, 0, 0, 255, 0]), 10)[4:]
    for page in pages:
        contents = driver.data(bytes([0x12, 1, page, 0, 255, 0]), 255)
        assert contents[1] == page
        length = int.from_bytes(contents[2:4], "big")
        # Nothing behind what it says it has.
        assert set(contents[4 + length :]) <= {0xEE}
    assert len(pages) == 6
    short, long = (
        driver.data(bytes([0x1A, 0, 8, 0, 255]), 24),
        driver.data(bytes([0x5A, 0, 8, *[0] * 5, 255]), 28),
    )
    assert short[4:] == long[8:]
    assert short[6] & 4, "it has a write cache"
    assert not short[2] & 0x80, "it is not read-only"


def test_another_target_or_unit_is_not_there(driver: Driver) -> None:
    for lun in (0x8100, 0x8020, 0x8001):
        driver.memory.write(DATA, bytes(36))
        assert driver.command(bytes([0x12, 0, 0, 0, 36]), [(DATA, 36)], lun=lun << 48)[0] == 0
        assert driver.memory.read(DATA, 1)[0] == 0x7F
        assert driver.command(read_16(0, 1), [(DATA, 512)], lun=lun << 48) == (2, (5, 0x25, 0))


READS = {
    "6": lambda first, count: bytes([0x08, first >> 16, first >> 8 & 0xFF, first & 0xFF, count & 0xFF, 0]),
    "10": lambda first, count: struct.pack(">BBIBHB", 0x28, 0, first, 0, count, 0),
    "12": lambda first, count: struct.pack(">BBII", 0xA8, 0, first, count),
    "16": read_16,
}


@pytest.mark.parametrize("length", READS)
@pytest.mark.parametrize("virtual", [True, False])
def test_each_kind_of_read_and_write_moves_the_same_sectors(path: Path, length: str, virtual: bool) -> None:
    chance = random.Random(length)
    model = bytearray(path.read_bytes())
    driver = Driver(path, virtual=virtual)
    driver.begin()
    for _ in range(40):
        count = chance.randint(1, 256)
        first = chance.randint(0, SECTORS - count)
        cdb = READS[length](first, count)
        pieces = cut(chance, DATA + 512 * chance.randint(0, 9), 512 * count)
        if chance.random() < 0.5:
            data = chance.randbytes(512 * count)
            put(driver, pieces, data)
            write = bytes([cdb[0] | 2, *cdb[1:]])
            assert driver.command(write, out=pieces) == (0, (0, 0, 0))
            model[512 * first : 512 * (first + count)] = data
        else:
            driver.memory.dirty.take()
            driver.changed.clear()
            assert driver.command(cdb, pieces) == (0, (0, 0, 0))
            got = b"".join(driver.memory.read(*piece) for piece in pieces)
            assert got == model[512 * first : 512 * (first + count)]
            pages = {page for at, size in pieces for page in range(at >> 12, (at + size - 1 >> 12) + 1)}
            assert pages <= set(driver.memory.dirty.take())
            assert sum(size for _, size in driver.changed) >= 512 * count
    driver.close()
    assert path.read_bytes() == model


def cut(chance: random.Random, start: int, size: int) -> list[tuple[int, int]]:
    """Up to ten pieces of memory, with gaps and in no order."""
    cuts = sorted({0, size, *(chance.randrange(1, size) for _ in range(chance.randint(0, 8)))})
    pieces = [(start + at + 4096 * n, end - at) for n, (at, end) in enumerate(pairwise(cuts))]
    chance.shuffle(pieces)
    return pieces


def put(driver: Driver, pieces: list[tuple[int, int]], data: bytes) -> None:
    at = 0
    for address, size in pieces:
        driver.memory.write(address, data[at : at + size])
        at += size


@pytest.mark.parametrize(
    ("cdb", "sense"),
    [
        (read_16(SECTORS, 1), OUT_OF_RANGE),
        (read_16((1 << 64) - 1, 1), OUT_OF_RANGE),
        (read_16(SECTORS - 1, 2), OUT_OF_RANGE),
        (read_16(0, 2049), ILLEGAL),
        (bytes([0x28, 0x20, 0, 0, 0, 0, 0, 0, 1]), ILLEGAL),
        (bytes([0xC1]), (5, 0x20, 0)),
        (bytes([0x12, 0, 1, 0, 36]), ILLEGAL),
        (bytes([0x12, 1, 0xEE, 0, 36]), ILLEGAL),
        (bytes([0x1A, 0, 0x1C, 0, 36]), ILLEGAL),
        (bytes([0x9E, 0x11]), ILLEGAL),
        (bytes([0x2F, 0x02, *bytes(6), 1]), ILLEGAL),
        # The guest's buffer is too short.
        (read_16(0, 16), (0xB, 0x4B, 0)),
    ],
)
def test_what_cannot_be_done_has_a_sense_code(
    driver: Driver, cdb: bytes, sense: tuple[int, int, int]
) -> None:
    assert driver.command(cdb, [(DATA, 4096)]) == (2, sense)
    assert driver.command(bytes(6)) == (0, (0, 0, 0)), "the disk goes on"


@pytest.mark.parametrize(
    "pieces",
    [
        [(MEMORY, 512)],
        [((1 << 64) - 256, 512)],
        [(DATA, 256), (MEMORY + 4096, 256)],
        [(0, (1 << 32) - 1)] * 3,
        [],
    ],
)
def test_memory_that_is_not_mapped_is_not_touched(driver: Driver, pieces: list[tuple[int, int]]) -> None:
    before = driver.memory.read(DATA, 4096)
    status, sense = driver.command(read_16(0, 1), pieces)
    assert (status, sense) == ((0, (0, 0, 0)) if len(pieces) == 3 else (2, (0xB, 0x4B, 0)))
    assert driver.memory.read(DATA, 4096) == before


def test_a_device_respects_what_the_guest_lets_it_do(driver: Driver) -> None:
    window = driver.adapter.window
    page = DATA >> 12
    assert window.put(DATA, [DATA | 1])
    assert driver.command(read_16(0, 1), [(DATA, 512)])[0] == 2
    assert driver.command(write_16(0, 1), out=[(DATA, 512)])[0] == 0
    assert window.put(DATA, [DATA | 2])
    assert driver.command(read_16(0, 1), [(DATA, 512)])[0] == 0
    assert driver.command(write_16(0, 1), out=[(DATA, 512)])[0] == 2
    assert window.get(DATA) == page << 12 | 2


def test_a_read_only_disk_is_not_written(path: Path) -> None:
    before = path.read_bytes()
    driver = Driver(path, "ro")
    driver.begin()
    assert driver.data(bytes([0x1A, 0, 8, 0, 255]), 24)[2] & 0x80
    assert driver.command(write_16(0, 1), out=[(DATA, 512)]) == (2, (7, 0x27, 0))
    assert driver.command(bytes([0x42, *bytes(6), 0, 24]), out=[(DATA, 24)]) == (2, (7, 0x27, 0))
    assert driver.command(read_16(0, 1), [(DATA, 512)])[0] == 0
    driver.close()
    assert path.read_bytes() == before


def test_unmapped_sectors_are_zeros_and_others_stay(driver: Driver, path: Path) -> None:
    model = bytearray(path.read_bytes())
    areas = [(8, 64), (1000, 1), (2048, 2048)]
    descriptors = b"".join(struct.pack(">QI4x", *area) for area in areas)
    parameters = struct.pack(">HH4x", 6 + len(descriptors), len(descriptors)) + descriptors
    driver.memory.write(DATA, parameters)
    unmap = bytes([0x42, *bytes(6), 0, len(parameters)])
    assert driver.command(unmap, out=[(DATA, len(parameters))]) == (0, (0, 0, 0))
    for first, count in areas:
        model[512 * first : 512 * (first + count)] = bytes(512 * count)
    assert path.read_bytes() == model
    driver.memory.write(DATA + 8, struct.pack(">QI", SECTORS - 1, 2))
    assert driver.command(unmap, out=[(DATA, len(parameters))]) == (2, OUT_OF_RANGE)
    assert path.read_bytes() == model


def test_a_flush_is_on_the_file_before_it_is_acknowledged(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    assert driver.command(write_16(0, 1), out=[(DATA, 512)])[0] == 0
    assert flushed == []
    assert driver.command(bytes([0x35]))[0] == 0
    assert len(flushed) == 1
    assert driver.command(write_16(0, 1, flags=8), out=[(DATA, 512)])[0] == 0
    assert len(flushed) == 2

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "it broke")

    monkeypatch.setattr(os, "fdatasync", fail)
    assert driver.command(bytes([0x91])) == (2, (3, 0x0C, 0))
    assert driver.command(bytes([0x91])) == (2, (3, 0x0C, 0))
    monkeypatch.undo()
    (line,) = driver.troubles
    assert "flushing failed: it broke" in line


def test_a_full_file_system_is_told_to_the_guest(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", fail)
    assert driver.command(write_16(0, 1), out=[(DATA, 512)]) == (2, (7, 0x27, 7))
    monkeypatch.undo()
    assert driver.command(write_16(0, 1), out=[(DATA, 512)])[0] == 0


def test_a_file_that_becomes_shorter_is_an_error_of_the_medium(driver: Driver, path: Path) -> None:
    os.truncate(path, 512)
    assert driver.command(read_16(0, 1), [(DATA, 512)])[0] == 0
    assert driver.command(read_16(1, 1), [(DATA, 512)]) == (2, (3, 0x11, 0))
    assert "has become shorter" in driver.troubles[0]


def test_requests_are_answered_in_order_while_the_guest_goes_on(path: Path) -> None:
    driver = Driver(path, virtual=False)
    driver.begin()
    for _ in range(3):
        sent = 0
        while driver.post(unit(read_16(0, 64), [(DATA, 64 * 512)])) == Status.SUCCESS and sent < 300:
            sent += 1
        answers = 0
        while driver.message() is not None:
            answers += 1
        # None was lost but those that a queue of 256 has no room for.
        assert answers == min(sent, QUEUE_SIZE // 16)
    assert driver.adapter.free_queue() == Status.SUCCESS
    driver.close()


def test_a_read_that_waits_for_nothing_is_done_within_the_call(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(path, virtual=False)
    driver.begin()
    written, write = threading.Event(), DiskFile.write
    read = unit(read_16(8, 1), into=[(DATA, 512)])

    def slow(file: DiskFile, *arguments: Any) -> None:
        assert written.wait(60)
        write(file, *arguments)

    monkeypatch.setattr(DiskFile, "write", slow)
    assert driver.post(read) == Status.SUCCESS
    assert driver.adapter._worker.unfinished == 0
    assert driver.memory.read(DATA, 512) == path.read_bytes()[4096:4608]
    # Behind a write it waits, and finds what was written.
    driver.memory.write(DATA + 4096, b"new" * 170 + b"ne")
    to_be_safe = write_16(8, 1, flags=8)
    assert driver.post(unit(to_be_safe, out=[(DATA + 4096, 512)])) == Status.SUCCESS
    assert driver.post(read) == Status.SUCCESS
    assert driver.memory.read(DATA, 512) == path.read_bytes()[4096:4608]
    written.set()
    driver.adapter.pause()
    assert driver.memory.read(DATA, 512) == b"new" * 170 + b"ne"
    # So does what is large: the guest goes on while the disk's thread moves it.
    by_thread: list[int] = []
    fill = DiskFile.read

    def counted(file: DiskFile, offset: int, *arguments: Any) -> None:
        by_thread.append(offset)
        fill(file, offset, *arguments)

    monkeypatch.setattr(DiskFile, "read", counted)
    for count in (128, 129):
        assert driver.post(unit(read_16(0, count), into=[(DATA, 512 * count)])) == Status.SUCCESS
        driver.adapter.pause()
        assert driver.memory.read(DATA, 512 * count) == path.read_bytes()[: 512 * count]
        assert bool(by_thread) == (count == 129)
    # What the host does not have in its cache is left to the disk's thread, too.
    monkeypatch.setattr(DiskFile, "read_at_once", lambda *_: False)
    driver.memory.write(DATA, bytes(512))
    assert driver.post(read) == Status.SUCCESS
    driver.adapter.pause()
    assert driver.memory.read(DATA, 512) == b"new" * 170 + b"ne"
    driver.close()


def test_a_small_write_is_done_within_the_call_unless_writing_takes_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(path, virtual=False)
    driver.begin()
    by_thread: list[int] = []
    write, times = DiskFile.write, iter((0.0, 0.001, 5.0, 5.1, 5.2, 6.0, 6.2, 6.201))

    def counted(file: DiskFile, offset: int, *arguments: Any) -> None:
        by_thread.append(offset)
        write(file, offset, *arguments)

    monkeypatch.setattr(DiskFile, "write", counted)
    monkeypatch.setattr("chronovisor.machine.disk_file.monotonic", lambda: next(times))
    driver.memory.write(DATA, random.Random(2).randbytes(65536 + 512))
    # The second takes 0.1 s, so for a second the thread writes.
    for sector in range(5):
        assert driver.post(unit(write_16(sector, 1), out=[(DATA + 512 * sector, 512)])) == Status.SUCCESS
        assert (driver.adapter._worker.unfinished == 0) or sector in (2, 3)
        driver.adapter.pause()
    assert by_thread == [1024, 1536]
    assert path.read_bytes()[: 5 * 512] == driver.memory.read(DATA, 5 * 512)
    assert driver.command(write_16(0, 129), out=[(DATA, 129 * 512)])[0] == 0
    assert by_thread == [1024, 1536, 0]
    driver.close()


def test_a_queue_is_registered_once_and_lies_where_it_can(driver: Driver) -> None:
    assert driver.adapter.register_queue(QUEUE, QUEUE_SIZE) == Status.RESOURCE
    assert driver.adapter.free_queue() == Status.SUCCESS
    for address, size in ((QUEUE + 16, QUEUE_SIZE), (QUEUE, 0), (QUEUE, 100), (QUEUE, 1 << 30)):
        assert driver.adapter.register_queue(address, size) == Status.PARAMETER
    assert driver.adapter.send(bytes([0x80, 1]) + bytes(14)) == Status.CLOSED


def test_a_saved_adapter_goes_on(driver: Driver, path: Path) -> None:
    driver.command(read_16(0, 1), [(DATA, 512)])
    state = driver.adapter.save()
    driver.adapter.reset()
    assert driver.adapter.send(bytes(16)) == Status.CLOSED
    driver.adapter.load(state)
    assert driver.command(read_16(3, 1), [(DATA, 512)])[0] == 0
    assert driver.memory.read(DATA, 512) == path.read_bytes()[3 * 512 : 4 * 512]
    assert driver.adapter.save().window == state.window


@pytest.mark.parametrize(
    "queue",
    [
        Queue(QUEUE + 8, QUEUE_SIZE, 0),
        Queue(QUEUE, 100, 0),
        Queue(QUEUE, 1 << 30, 0),
        Queue(QUEUE, QUEUE_SIZE, 8),
        Queue(QUEUE, QUEUE_SIZE, QUEUE_SIZE),
        Queue(QUEUE, 0, 0),
    ],
)
def test_a_saved_adapter_whose_queue_makes_no_sense_is_refused(driver: Driver, queue: Queue) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        driver.adapter.load(replace(driver.adapter.save(), queue=queue))


# Files


@pytest.mark.parametrize(
    ("contents", "options", "words"),
    [
        (b"", "", "0 bytes"),
        (bytes(700), "", "is it truncated?"),
        (b"QFI\xfb" + bytes(508), "", "looks like a disk of format qcow2"),
        (bytes(512), ",format=vmdk", "'format=vmdk' is no option"),
        (bytes(512), ",rw", "'rw' is no option"),
    ],
)
def test_what_is_no_disk_is_refused_in_a_line(
    tmp_path: Path, contents: bytes, options: str, words: str
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(contents)
    with pytest.raises(MachineError, match=words) as caught:
        DiskFile(DiskOption.parse(f"{path}{options}"))
    assert "\n" not in str(caught.value)


def test_a_file_with_a_comma_and_one_that_looks_like_qcow2_can_be_disks(tmp_path: Path) -> None:
    path = tmp_path / "a,b"
    path.write_bytes(b"QFI\xfb" + bytes(508))
    file = DiskFile(DiskOption.parse(f"{tmp_path}/a,,b,ro,format=raw"))
    assert (file.path, file.size, file.read_only) == (str(path), 512, True)
    file.close()


@pytest.mark.parametrize("path", ["/", "/dev/zero", "/nowhere/disk"])
def test_what_is_no_file_is_refused_in_a_line(path: str) -> None:
    with pytest.raises(MachineError, match=f"disk {path}: "):
        DiskFile(DiskOption.parse(path))


def test_a_disk_that_cannot_be_opened_lets_the_others_go(driver: Driver, path: Path, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MachineError, match="No such file"):
        Attachments.parse([f"{path},ro", str(tmp_path / "none")]).open(driver.adapter.around)
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(MachineError, match="8 at most"):
        Attachments.parse([str(path)] * 9)


HOLD = """
import sys
from chronovisor.machine.disk import DiskOption
from chronovisor.machine.disk_file import DiskFile
file = DiskFile(DiskOption.parse(sys.argv[1]))
file.lock()
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("held", "asked", "free"), [("", "", False), ("", ",ro", False), (",ro", "", False), (",ro", ",ro", True)]
)
def test_a_disk_in_use_is_refused(path: Path, held: str, asked: str, free: bool) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, f"{path}{held}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    file = DiskFile(DiskOption.parse(f"{path}{asked}"))
    if free:
        file.lock()
    else:
        with pytest.raises(MachineError, match="is in use by"):
            file.lock()
    other.kill()
    other.wait()
    file.lock()
    file.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 16), st.lists(st.integers(0, (1 << 64) - 1), max_size=40)), max_size=6
    )
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_saved_and_loaded_whole(driver: Driver, puts: list[tuple[int, list[int]]]) -> None:
    window = driver.adapter.window
    window.clear()
    table: dict[int, int] = {}
    for first, entries in puts:
        if window.put(first << 12, entries):
            table |= {first + number: entry for number, entry in enumerate(entries)}
    saved = window.save()
    assert {m.first + n: entry for m in saved for n, entry in enumerate(m.entries)} == {
        number: entry for number, entry in table.items() if entry
    }
    window.load(saved)
    assert window.save() == saved
    assert all(window.get(number << 12) == entry for number, entry in table.items())
