"""A disk with Debian for 64-bit Power, made of Debian's packages.

`python -m chronovisor.cli.debian_disk DIRECTORY` leaves `debian.img` there, and `debian-vmlinux` and
`debian-initrd.cpio`, with which a guest boots from it. mmdebstrap fetches and unpacks the packages here.
Their own scripts configure them in a guest: this is the second stage, the first time that a guest boots from
the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from chronovisor.cli.busybox import initramfs
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.kernel_modules import DISK, NETWORK, loading, modules
from chronovisor.machine.ending import EndReason
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
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
_LEFT_OUT: Final = ("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*")
_MEMORY: Final = "1G"
_HOURS: Final = 2
"""More than the second stage takes."""
# Debian's udev names the card by the end of its unit's address.
_FILES: Final = {
    "etc/fstab": "/dev/sda / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 debian\n",
    "etc/network/interfaces": (
        "auto lo\niface lo inet loopback\n\nauto ibmveth20\niface ibmveth20 inet dhcp\n"
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


def make(directory: Path, packages: Packages) -> None:
    """Make the disk and what boots from it; FetchError or MachineError if that fails."""
    directory.mkdir(parents=True, exist_ok=True)
    kernel = packages.kernel()
    found = modules(kernel, (*DISK, *NETWORK))
    initrd = initramfs(packages, _INIT.format(loading=loading(found)), found)
    (directory / INITRD).write_bytes(initrd)
    (directory / KERNEL).unlink(missing_ok=True)
    (directory / KERNEL).symlink_to(packages.vmlinux())
    partial = directory / f"{IMAGE}.partial"
    first_stage(partial, packages, kernel)
    second_stage(partial, packages.vmlinux(), initrd)
    partial.rename(directory / IMAGE)


def first_stage(image: Path, packages: Packages, kernel: Path) -> None:
    """Make a disk with the packages unpacked, and with the kernel's modules."""
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise FetchError(f"needs Debian's {' and '.join(missing)}")
    if os.geteuid():
        raise FetchError("only root can make the disk: its files belong to several users")
    root = image.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    uri, suite = packages.mirror()
    _run(
        *("mmdebstrap", "--mode=root", "--architectures=ppc64el", "--variant=extract"),
        *("--skip=cleanup/apt,check/qemu", *(f"--include={package}" for package in _PACKAGES)),
        *(f"--dpkgopt=path-exclude=/{path}" for path in _LEFT_OUT),
        *(suite, str(root), f"deb {uri} {suite} main"),
    )
    shutil.copytree(kernel / "lib/modules", root / "lib/modules", symlinks=True, dirs_exist_ok=True)
    for name, text in {**_FILES, "second-stage": _SECOND_STAGE}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for rest in (root / "var/cache/apt").glob("*.bin"):
        rest.unlink()
    image.unlink(missing_ok=True)
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), f"{SIZE >> 10}k")
    shutil.rmtree(root)


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
        raise FetchError(f"{command[0]} failed: {(ended.stderr.strip() or '?').splitlines()[-1]}")


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), Packages())
    except IndexError:
        sys.exit("usage: debian_disk.py DIRECTORY")
    except (FetchError, MachineError, OSError) as error:
        sys.exit(f"debian_disk.py: {error}")
    print(
        f"chronovisor run --kernel {sys.argv[1]}/{KERNEL} --initrd {sys.argv[1]}/{INITRD} --memory 1G "
        f'--disk {sys.argv[1]}/{IMAGE} --net passt --append "{COMMAND_LINE}"'
    )
