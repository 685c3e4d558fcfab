"""A disk with Debian for 64-bit Power, made of Debian's packages.

`python -m chronovisor.cli.debian_disk DIRECTORY [PACKAGE ...]` leaves `debian.img` there, and
`debian-vmlinux` and `debian-initrd.cpio`, with which a guest boots from it. mmdebstrap fetches and unpacks
the packages here, further ones that are named among them. Their own scripts configure them in a guest: this
is the second stage, the first time that a guest boots from the disk.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chronovisor.cli.busybox import initramfs
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.kernel_modules import DISK, NETWORK, loading, modules
from chronovisor.machine.ending import EndReason
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.machine.network import MTU
from chronovisor.machine.vio.attachments import Attachments

IMAGE: Final = "debian.img"
INITRD: Final = "debian-initrd.cpio"
KERNEL: Final = "debian-vmlinux"
SIZE: Final = 4 << 30
"""Bytes of the disk; its file takes what is used."""
COMMAND_LINE: Final = "console=hvc0"
_TOOLS: Final = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
_PACKAGES: Final = (
    "?or(?essential, ?priority(required))",
    *("apt", "ca-certificates", "dbus", "e2fsprogs", "ifupdown", "iproute2", "isc-dhcp-client", "kmod"),
    *("netbase", "systemd-sysv", "udev"),
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""Of a package."""
_LEFT_OUT: Final = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*")
_MEMORY: Final = "1G"
_HOURS: Final = 2
"""More than the second stage takes."""
# Debian's udev names the card by the end of its unit's address. ibmveth closes the card for a new MTU, and
# opens it again: a vCPU that sends a frame meanwhile may find no buffer (Linux 6.1 panics). So DHCP brings no
# new MTU.
_FILES: Final = {
    "etc/fstab": "/dev/sda / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 debian\n",
    "etc/network/interfaces": (
        "auto lo\niface lo inet loopback\n\nauto ibmveth20\niface ibmveth20 inet dhcp\n"
        f"    pre-up ip link set dev $IFACE mtu {MTU}\n"
    ),
    "etc/modules": "ibmveth\n",
}
_SECOND_STAGE: Final = """#!/bin/sh
# The order of the first packages is that of debootstrap's second stage.
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /var/cache/apt/archives
install() { dpkg --force-depends --force-confold --force-unsafe-io --install "$@"; }
for package in base-passwd base-files dpkg; do install ${package}_*.deb; done
ln -sf mawk /usr/bin/awk
for package in libc6 perl-base; do install ${package}_*.deb; done
rm -f /usr/bin/awk
for package in mawk debconf; do install ${package}_*.deb; done
dpkg --force-depends --force-confold --force-unsafe-io --unpack *.deb
dpkg --force-depends --force-unsafe-io --force-configure-any --configure --pending
dpkg --configure --pending || exit 1
passwd --delete root
depmod "$(ls /lib/modules)"
rm -f /var/cache/apt/archives/*.deb
"""
_INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
{loading}
mkdir /mnt
n=0
while [ ! -b /dev/sda ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
if mount /dev/sda /mnt && [ -e /mnt/second-stage ]; then
    # Nobody needs what is half done: no flush before the end.
    mount -o remount,barrier=0 /mnt
    for directory in proc sys dev; do mount -o bind /$directory /mnt/$directory; done
    chroot /mnt /bin/sh /second-stage && rm /mnt/second-stage && echo "second stage: done"
    for directory in dev sys proc; do umount /mnt/$directory; done
    umount /mnt
    poweroff -f
fi
umount /sys /dev /proc
exec switch_root /mnt /sbin/init
"""


def make(directory: Path, packages: Packages, further: Sequence[str] = ()) -> None:
    """Make the disk, with further packages on it, and what boots from it.

    FetchError or MachineError if that fails; a disk that was there before is then still there.
    """
    if wrong := [name for name in further if not _NAME.fullmatch(name)]:
        raise FetchError(f"{wrong[0]!r} is no package's name")
    directory.mkdir(parents=True, exist_ok=True)
    kernel = packages.kernel()
    found = modules(kernel, (*DISK, *NETWORK))
    initrd = initramfs(packages, _INIT.format(loading=loading(found)), found)
    (directory / INITRD).write_bytes(initrd)
    (directory / KERNEL).unlink(missing_ok=True)
    (directory / KERNEL).symlink_to(packages.vmlinux())
    partial = directory / f"{IMAGE}.partial"
    try:
        first_stage(partial, packages, kernel, further)
        second_stage(partial, packages.vmlinux(), initrd)
        partial.rename(directory / IMAGE)
    finally:
        partial.unlink(missing_ok=True)


def first_stage(image: Path, packages: Packages, kernel: Path, further: Sequence[str] = ()) -> None:
    """Make a disk with the packages, not configured yet, and with the kernel's modules."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise FetchError(f"needs Debian's {' and '.join(missing)}")
    if os.geteuid():
        raise FetchError("only root can make the disk: its files belong to several users")
    image.unlink(missing_ok=True)
    root = image.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    try:
        _unpack(root, packages, further)
        shutil.copytree(kernel / "lib/modules", root / "lib/modules", symlinks=True, dirs_exist_ok=True)
        for name, text in {**_FILES, "second-stage": _SECOND_STAGE}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), f"{SIZE >> 10}k")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _unpack(root: Path, packages: Packages, further: Sequence[str]) -> None:
    uri, suite = packages.mirror()
    _run(
        *("mmdebstrap", "--mode=root", "--architectures=ppc64el", "--variant=extract"),
        *("--skip=cleanup/apt,check/qemu", *(f"--include={name}" for name in (*_PACKAGES, *further))),
        *(f"--dpkgopt=path-exclude=/{path}" for path in _LEFT_OUT),
        *(suite, str(root), f"deb {uri} {suite} main"),
    )
    for rest in (root / "var/cache/apt").glob("*.bin"):
        rest.unlink()


def second_stage(image: Path, kernel: Path, initrd: bytes) -> None:
    """Boot from the disk: the packages' scripts configure them, and the guest powers off."""
    with Host() as host:
        host.attachments = Attachments.parse([str(image).replace(",", ",,")])
        guest = host.boot(
            kernel, _MEMORY, append=f"{COMMAND_LINE} quiet", initrd=initrd, console=sys.stdout.buffer
        )
        end = guest.run(3600 * _HOURS)
        if end.reason is not EndReason.POWER_OFF or "second stage: done" not in guest.console_text:
            raise FetchError(f"the second stage failed: {end.message}")


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["?"]
        # What apt says is wrong comes first; what mmdebstrap makes of it, last.
        told = next((line for line in lines if line.startswith("E: ")), lines[-1])
        raise FetchError(f"{command[0]} failed: {told.removeprefix('E: ')}")


def main(arguments: Sequence[str]) -> None:
    """Make the disk that the command line asks for, and print how it is booted."""
    parser = argparse.ArgumentParser(
        prog="debian_disk.py", description="Makes a disk with Debian for 64-bit Power."
    )
    parser.add_argument(
        "directory", metavar="DIRECTORY", help="where the disk and what boots from it are left"
    )
    parser.add_argument(
        "packages", metavar="PACKAGE", nargs="*", help="a further package of Debian's for the disk"
    )
    asked = parser.parse_args(arguments)
    place = asked.directory
    try:
        make(Path(place), Packages(), asked.packages)
    except (FetchError, MachineError, OSError) as error:
        sys.exit(f"debian_disk.py: {error}")
    except KeyboardInterrupt:
        sys.exit("debian_disk.py: interrupted")
    print(
        f"chronovisor run --kernel {place}/{KERNEL} --initrd {place}/{INITRD} --memory 1G "
        f'--disk {place}/{IMAGE} --net passt --append "{COMMAND_LINE}"'
    )


if __name__ == "__main__":
    main(sys.argv[1:])
