"""Guests that move, or are saved, with a disk: its lock is handed over, and no other guest can have it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_move_failures import BEFORE_COMMIT, LosingLink

from chronovisor.machine import Guest, Host
from chronovisor.machine.disk import DiskOption
from chronovisor.machine.disk_file import DiskFile
from chronovisor.machine.errors import MachineError
from chronovisor.machine.vio.attachments import NOTHING, Attachments
from chronovisor.machine.vio.crq import Queue
from chronovisor.machine.vio.vscsi import DiskAdapter
from chronovisor.migration.errors import MoveError, MoveRefusedError, MoveUndecidedError
from chronovisor.migration.move import move
from chronovisor.migration.phases import DestinationPhase, SourcePhase
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import Ticks


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def hosts(disk: Path) -> Iterator[tuple[Host, Host]]:
    clock = VirtualTime()
    with Host(clock=clock) as here, Host(clock=clock, tb_origin=1 << 40) as there:
        here.attachments = there.attachments = Attachments.parse([str(disk)])
        yield here, there


@pytest.fixture
def guest(hosts: tuple[Host, Host]) -> Guest:
    guest = hosts[0].boot("demo-le.elf", "1M")
    assert guest.run_until("watching")
    adapter(guest).window.put(0x5000, [0x7003, 0x8001])
    adapter(guest).signals = True
    assert adapter(guest).register_queue(0x5000, 0x1000) == 0
    return guest


def adapter(guest: Guest) -> DiskAdapter:
    (device,) = guest.platform.vio.devices
    assert isinstance(device, DiskAdapter)
    return device


def in_use(disk: Path) -> bool:
    """Whether somebody has the disk."""
    file = DiskFile(DiskOption(str(disk)))
    try:
        file.lock()
    except MachineError:
        return True
    finally:
        file.close()
    return False


def test_a_disk_goes_with_its_guest(guest: Guest, hosts: tuple[Host, Host], disk: Path) -> None:
    before = adapter(guest).save()
    assert in_use(disk)
    moved, _ = move(guest, hosts[1])
    assert in_use(disk)
    assert adapter(moved).save() == before
    assert before.queue == Queue(0x5000, 0x1000, 0)
    assert moved.run_for(Ticks(100_000)) is None
    hosts[1].discard(moved)
    assert not in_use(disk)


def test_what_the_guest_wrote_is_on_the_disk_before_commit(
    guest: Guest, hosts: tuple[Host, Host], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course: list[object] = []
    monkeypatch.setattr(DiskFile, "flush", lambda file: course.append("flush"))
    move(guest, hosts[1], probe=lambda phase: course.append((phase, in_use(disk))))
    sent = course.index((SourcePhase.COMMIT, False))
    assert "flush" in course[course.index((SourcePhase.SEND_STATE, True)) : sent]
    assert course[-1] == (DestinationPhase.START, True)


@pytest.mark.parametrize("lost", range(len(BEFORE_COMMIT)))
def test_a_move_that_fails_leaves_the_disk_here(
    guest: Guest, hosts: tuple[Host, Host], disk: Path, lost: int
) -> None:
    with pytest.raises(MoveError):
        move(guest, hosts[1], LosingLink(lost))
    assert in_use(disk)
    assert guest.run_for(Ticks(100_000)) is None
    moved, _ = move(guest, hosts[1])
    assert in_use(disk)
    assert moved.run_for(Ticks(100_000)) is None


def test_a_guest_that_was_given_away_cannot_be_resumed_while_its_disk_is_in_use(
    guest: Guest, hosts: tuple[Host, Host]
) -> None:
    with pytest.raises(MoveUndecidedError):
        move(guest, hosts[1], LosingLink(len(BEFORE_COMMIT) + 1))
    with pytest.raises(MachineError, match="is in use by another guest"):
        guest.resume()


def test_a_disk_that_another_takes_at_the_last_moment(
    guest: Guest, hosts: tuple[Host, Host], disk: Path
) -> None:
    thief = DiskFile(DiskOption(str(disk)))
    guest.resume()
    with pytest.raises(MoveError, match=r"stays paused here: disk .* is in use by another guest"):
        move(guest, hosts[1], probe=lambda phase: thief.lock() if phase is SourcePhase.COMMIT else None)
    assert not guest.running
    thief.close()
    assert guest.run_for(Ticks(100_000)) is None


def longer(disk: Path) -> Attachments:
    path = disk.with_name("longer")
    path.write_bytes(bytes(2 << 20))
    return Attachments.parse([str(path)])


OTHERS: dict[str, Callable[[Path], Attachments]] = {
    "has a device 71000010 and none is attached": lambda disk: NOTHING,
    "a disk is attached here that the guest does not have": lambda disk: Attachments.parse(
        [str(disk), f"{disk},ro"]
    ),
    "it has 2097152 bytes, and the guest's has 1048576": longer,
    "is read-only, and the guest's has": lambda disk: Attachments.parse([f"{disk},ro"]),
    "No such file": lambda disk: Attachments.parse([f"{disk}-gone"]),
}


@pytest.mark.parametrize("words", OTHERS)
def test_a_host_with_other_disks_does_not_take_the_guest(
    guest: Guest, hosts: tuple[Host, Host], disk: Path, tmp_path: Path, words: str
) -> None:
    hosts[1].attachments = OTHERS[words](disk)
    with pytest.raises(MoveError, match=words) as caught:
        move(guest, hosts[1])
    assert isinstance(caught.value, MoveRefusedError) or "it has" in str(caught.value)
    assert hosts[1].guests == []
    assert guest.run_for(Ticks(100_000)) is None
    saved = tmp_path / "saved"
    snapshot(guest, saved)
    hosts[0].discard(guest)
    with pytest.raises(MachineError, match=words):
        restore(saved, hosts[1])


def test_a_saved_guest_goes_on_with_its_disk(
    guest: Guest, hosts: tuple[Host, Host], disk: Path, tmp_path: Path
) -> None:
    before = adapter(guest).save()
    snapshot(guest, tmp_path / "saved")
    with pytest.raises(MachineError, match="is in use by another guest"):
        restore(tmp_path / "saved", hosts[1])
    hosts[0].discard(guest)
    restored, _ = restore(tmp_path / "saved", hosts[1])
    assert adapter(restored).save() == before
    assert in_use(disk)
    assert restored.run_for(Ticks(100_000)) is None


def test_a_disk_that_was_written_to_after_its_guest_was_saved_is_refused(
    guest: Guest, hosts: tuple[Host, Host], disk: Path, tmp_path: Path
) -> None:
    saved, copy = tmp_path / "saved", tmp_path / "copy"
    snapshot(guest, saved)
    shutil.copy2(disk, copy)
    adapter(guest).file.write(0, [memoryview(b"later")])
    hosts[0].discard(guest)
    with pytest.raises(MachineError, match=r"disk .*: it was written to after the guest was saved"):
        restore(saved, hosts[1])
    assert not in_use(disk)
    restored, _ = restore(saved, hosts[1], changed_disks=True)
    hosts[1].discard(restored)
    hosts[1].attachments = Attachments.parse([str(copy)])
    restored, _ = restore(saved, hosts[1])
    assert in_use(copy)


@pytest.mark.oracle
def test_an_image_of_qcow2_goes_with_its_guest(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"], check=True)
    for host in hosts:
        host.attachments = Attachments.parse([f"{image},format=qcow2"])
    guest = hosts[0].boot("demo-le.elf", "1M")
    assert guest.run_until("watching")
    adapter(guest).file.write(512, [memoryview(b"before " * 100)])
    moved, _ = move(guest, hosts[1])
    found = bytearray(700)
    adapter(moved).file.read(512, [memoryview(found)])
    assert found == b"before " * 100
    assert moved.run_for(Ticks(100_000)) is None
