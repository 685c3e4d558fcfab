"""Debian's kernel uses a virtual disk by its own driver: ext4 on it, and a program executed from it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.machine.console import Console
from chronovisor.machine.guest import EndReason, Guest
from chronovisor.machine.host import Host
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.migration.move import move
from linux_guest.guests import BOOT_SECONDS, COMPLAINTS, OWN, Lines, busybox
from linux_guest.modules import DISK, loading, modules

pytestmark = pytest.mark.oracle
SIZE = 64 << 20
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
{loading}
mkdir /mnt
mount /dev/sda /mnt
cd /mnt
{commands}
cd /
umount /mnt
poweroff -f
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file with an empty file system, which is whole at the test's end too."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True)
    yield path
    subprocess.run(["e2fsck", "-fn", str(path)], check=True, capture_output=True)


def archive(commands: str) -> bytes:
    found = modules(OWN, DISK)
    return busybox(INIT.format(loading=loading(found), commands=commands), found)


def read_file(disk: Path, name: str) -> bytes:
    """Return a file's content by the host's own tools."""
    shown = subprocess.run(["debugfs", "-R", f"cat {name}", str(disk)], check=True, capture_output=True)
    return shown.stdout


def boot(host: Host, lines: Lines) -> Guest:
    append = "console=hvc0 cryptomgr.notests quiet"
    return host.boot(OWN.vmlinux(), "256M", 2, append=append, initrd=archive(WORK), console=Console(lines))


WORK = """
echo
dd if=/dev/urandom of=random bs=64k count=8 2>/dev/null
sha256sum random >sum
cp /bin/busybox echo
sync
echo 3 >/proc/sys/vm/drop_caches
sha256sum -c sum
./echo "executed from the disk"
(read line; touch /tmp/stop) </dev/hvc0 &
echo "writing"
n=0
while [ ! -e /tmp/stop ]; do
  n=$((n + 1))
  cp random copy$((n % 4))
  sync
  echo 3 >/proc/sys/vm/drop_caches
  cmp random copy$((n % 4)) || echo "differs"
done
echo "copied: $n"
"""
MOVES = 3


def test_a_file_system_on_a_disk_that_moves(disk: Path) -> None:
    lines = Lines()
    hosts = [Host(tb_origin=number << 50) for number in range(2)]
    for host in hosts:
        host.attachments = Attachments.parse([str(disk)])
    guest = boot(hosts[0], lines)
    assert guest.run_until("writing\r\n")
    guest.resume()
    for number in range(MOVES):
        time.sleep(0.3)
        guest, _ = move(guest, hosts[1 - number % 2])
    guest.console.type(b"stop\n")
    end = guest.run(BOOT_SECONDS)
    assert end.reason is EndReason.POWER_OFF, lines.text
    for host in hosts:
        host.close()
    assert {"random: OK", "executed from the disk"} <= set(lines.lines)
    assert "differs" not in lines.text
    (copied,) = re.findall(r"copied: (\d+)", lines.text)
    assert int(copied) > 0
    assert not COMPLAINTS.search(lines.text)
    assert read_file(disk, "echo")[:4] == b"\x7fELF"
    assert read_file(disk, "random") == read_file(disk, "copy1")
