"""A host process that is killed while its guest writes: the disk has what the guest was told was saved."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from soak import new_seed, share

from chronovisor.cli.kernel_modules import loading
from chronovisor.machine.ending import EndReason
from chronovisor.machine.host import Host
from chronovisor.machine.vio.attachments import Attachments
from linux_guest.guests import BOOT_SECONDS, COMPLAINTS, OWN, PATIENT, busybox
from linux_guest.modules import device_modules

pytestmark = [pytest.mark.oracle, pytest.mark.soak]
SIZE = 32 << 20
COMMAND_LINE = f"console=hvc0 cryptomgr.notests quiet {PATIENT}"
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
{loading}
mkdir /mnt
mount /dev/sda /mnt
cd /mnt
echo
{commands}
cd /
umount /mnt
poweroff -f
"""
WRITE = """
# This one never waits for the disk, and its names come and go.
while :; do cp /bin/busybox unsaved; mv unsaved other; rm other; done &
n=0
while :; do
    n=$((n + 1))
    seq $n $((n + 5000)) >saved$n
    sync saved$n
    echo "saved $n"
    [ $n -le 20 ] || rm saved$((n - 20))
done
"""
"""Each file that is saved is announced; the last twenty at least are there."""
CHECK = """
for file in saved*; do
    n=${file#saved}
    seq $n $((n + 5000)) | cmp -s - $file && echo "whole $n"
done
"""


def archive(commands: str) -> bytes:
    found = device_modules(OWN)
    return busybox(INIT.format(loading=loading(found), commands=commands), found)


def written_until_killed(disk: Path, initrd: Path, seconds: float) -> int:
    """Have a guest write until its host's process is killed; return the last file that was announced."""
    command = [sys.executable, "-m", "chronovisor", "run", "--kernel", str(OWN.vmlinux())]
    command += ["--initrd", str(initrd), "--memory", "256M", "--append", COMMAND_LINE, "--disk", str(disk)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    printed = b""
    while b"saved 3\r\n" not in printed:
        read = process.stdout.read1()
        assert read, printed
        printed += read
    time.sleep(seconds)
    process.kill()
    printed += process.stdout.read()
    process.wait()
    return int(re.findall(rb"saved (\d+)\r\n", printed)[-1])


def checked_by_the_host(disk: Path) -> None:
    """Have the host's own tool replay the journal, and then find nothing wrong."""
    replayed = subprocess.run(["e2fsck", "-p", str(disk)], capture_output=True, text=True, check=False)
    # 1: files that were deleted while they were open are gone now.
    assert replayed.returncode in (0, 1), replayed.stdout
    assert "recovering journal" in replayed.stdout
    subprocess.run(["e2fsck", "-fn", str(disk)], check=True, capture_output=True)


def checked_by_a_guest(disk: Path, initrd: bytes) -> set[int]:
    """Have a guest replay the journal; return which files are whole."""
    with Host() as host:
        host.attachments = Attachments.parse([str(disk)])
        guest = host.boot(OWN.vmlinux(), "256M", append=COMMAND_LINE, initrd=initrd)
        assert guest.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, guest.console_text
        assert not COMPLAINTS.search(guest.console_text)
        return {int(number) for number in re.findall(r"whole (\d+)", guest.console_text)}


def test_what_was_saved_survives_the_host(tmp_path: Path) -> None:
    seed = new_seed()
    chance = Random(seed)
    writing, checking = tmp_path / "writing", archive(CHECK)
    writing.write_bytes(archive(WRITE))
    for _ in range(share(20)):
        disk, copy = tmp_path / "disk", tmp_path / "copy"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
        last = written_until_killed(disk, writing, chance.uniform(0, 3))
        shutil.copy(disk, copy)
        checked_by_the_host(copy)
        assert checked_by_a_guest(disk, checking) >= set(range(max(1, last - 19), last + 1)), f"seed {seed}"
        subprocess.run(["e2fsck", "-fn", str(disk)], check=True, capture_output=True)
