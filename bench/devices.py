"""Disk and network of a Debian guest, here and in QEMU (spapr-vscsi, spapr-vlan), by the guest's clock.

Both have the same file as their disk and passt as their network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.in_turns import Pair, in_turns, table
from chronovisor.cli.busybox import initramfs
from chronovisor.cli.debian import FetchError, Packages
from chronovisor.cli.demo.linux.qemu import MACHINE, PROGRAM
from chronovisor.cli.kernel_modules import DISK, NETWORK, loading, modules
from chronovisor.machine.host import Host
from chronovisor.machine.vio.attachments import Attachments

RUNS: Final = 3
"""How often each side boots the guest, in turns. The medians are reported."""
WARM: Final = 5
"""How often the guest boots here before, so that what it executes is compiled."""
_COMPILER: Final = "powerpc64le-linux-gnu-gcc"
_TIMEOUT: Final = 300
_MEMORY: Final = "512M"
_COMMAND_LINE: Final = "console=hvc0 cryptomgr.notests quiet"
_DISK_MIB: Final = 64
_RECEIVED_MIB: Final = 32
_TIMES: Final = 4
"""How often so much is received."""
_MTU: Final = 65_000
"""Bytes, of large frames."""
_SENT_MIB: Final = 128
_TRIPS: Final = 10_000
_DEPTH: Final = 16
"""Reads and writes that are under way at a time."""
_SMALL: Final = 10_000
"""Reads and writes of 4 KiB, one after the other."""
_MANY: Final = 20_000
"""Reads and writes of 4 KiB, several at a time."""
_LINE: Final = re.compile(r"^work: (.+): ([0-9.]+)\r?$", re.MULTILINE)
_CONFIGURE: Final = b"""#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
route add default gw $router
echo $router >/tmp/router
"""
_INIT: Final = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
{loading}
ifconfig lo up
ifconfig eth0 up
udhcpc -i eth0 -s /bin/configure -q -n >/dev/null 2>&1
now() {{ read up idle </proc/uptime; now=${{up%.*}}${{up#*.}}; }}
work() {{
    name=$1; amount=$2; shift 2
    now; begin=$now
    "$@" >/dev/null 2>/tmp/said || {{ echo "failed: $name"; cat /tmp/said; }}
    now; ticks=$((now - begin)); [ $ticks -gt 0 ] || ticks=1
    echo "work: $name: $((amount * 100 / ticks))"
}}
send() {{ nc $(cat /tmp/router) {port} -e dd if=/dev/zero bs=64k count={sends}; }}
receive() {{ wget -q -O /dev/null http://$(cat /tmp/router):{port}/; }}
much() {{ n=0; while [ $n -lt {times} ]; do receive || return 1; n=$((n + 1)); done; }}
echo
work 'disk, written and flushed, MiB/s' {disk} dd if=/dev/zero of=/dev/sda bs=1M count={disk} conv=fsync
echo 3 >/proc/sys/vm/drop_caches
work 'disk, read, MiB/s' {disk} dd if=/dev/sda of=/dev/null bs=1M count={disk}
work 'disk, reads of 4 KiB a second' {small} dd if=/dev/sda of=/dev/null bs=4k count={small} iflag=direct
work 'disk, writes of 4 KiB a second' {small} dd if=/dev/zero of=/dev/sda bs=4k count={small} oflag=direct
work 'disk, reads of 4 KiB at random, {depth} at a time' {many} device-work read {depth} {many}
work 'disk, writes of 4 KiB at random, {depth} at a time' {many} device-work write {depth} {many}
work 'network, sent, KiB/s' {sent} send
work 'network, received, KiB/s' {much} much
work 'network, round trips a second' {trips} device-work trips $(cat /tmp/router) {port} {trips}
ifconfig eth0 mtu {mtu}
work 'network, received in large frames, KiB/s' {much} much
poweroff -f
"""


@contextmanager
def _server() -> Iterator[int]:
    """The port of a server that answers an HTTP request with so many bytes, and else takes what comes."""
    command = [sys.executable, "-m", "bench.network_server", str(_RECEIVED_MIB << 20)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def _device_work() -> bytes:
    """The guest's program of `device_work.c`; FetchError if there is no compiler."""
    if shutil.which(_COMPILER) is None:
        raise FetchError("needs Debian's gcc-powerpc64le-linux-gnu")
    source = Path(__file__).with_name("device_work.c")
    with tempfile.NamedTemporaryFile() as made:
        subprocess.run([_COMPILER, "-O2", "-static", "-o", made.name, str(source)], check=True)
        return Path(made.name).read_bytes()


def _archive(packages: Packages, port: int) -> bytes:
    found = modules(packages.kernel(), (*DISK, *NETWORK))
    init = _INIT.format(
        loading=loading(found),
        port=port,
        disk=_DISK_MIB,
        small=_SMALL,
        many=_MANY,
        sends=_SENT_MIB * 16,
        sent=_SENT_MIB << 10,
        trips=_TRIPS,
        depth=_DEPTH,
        times=_TIMES,
        much=_TIMES * _RECEIVED_MIB << 10,
        mtu=_MTU,
    )
    return initramfs(packages, init, {**found, "configure": _CONFIGURE, "device-work": _device_work()})


def _found(console: str) -> dict[str, float]:
    found = {name: float(rate) for name, rate in _LINE.findall(console)}
    if len(found) != _INIT.count("\nwork '") or "failed: " in console:
        raise RuntimeError(f"the guest did not come to its end: {console[-500:]}")
    return found


def here(kernel: Path, initrd: bytes, disk: Path) -> dict[str, float]:
    """The guest on an embedded host: name -> how much a second."""
    with Host() as host:
        host.attachments = Attachments.parse([str(disk)], "passt")
        guest = host.boot(kernel, _MEMORY, append=_COMMAND_LINE, initrd=initrd)
        guest.run(_TIMEOUT)
        return _found(guest.console_text)


def in_qemu(kernel: Path, initrd: bytes, disk: Path) -> dict[str, float]:
    """The same guest in QEMU (TCG); empty if QEMU is not installed."""
    if shutil.which(PROGRAM) is None:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        archive, way = Path(scratch) / "initrd", Path(scratch) / "passt"
        archive.write_bytes(initrd)
        # passt changes to another user.
        Path(scratch).chmod(0o777)
        with subprocess.Popen(
            ["passt", "--foreground", "--quiet", "--one-off", "--socket", str(way)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as passt:
            try:
                while not way.exists() and passt.poll() is None:
                    time.sleep(0.01)
                command = [PROGRAM, "-M", MACHINE, "-cpu", "power9", "-m", _MEMORY]
                command += ["-display", "none", "-vga", "none", "-serial", "stdio", "-no-reboot"]
                command += ["-kernel", str(kernel), "-initrd", str(archive), "-append", _COMMAND_LINE]
                command += ["-device", "spapr-vscsi,id=scsi", "-device", "scsi-hd,drive=disk,bus=scsi.0"]
                command += ["-drive", f"if=none,id=disk,format=raw,file={disk}"]
                command += ["-device", "spapr-vlan,netdev=net"]
                command += ["-netdev", f"stream,id=net,server=off,addr.type=unix,addr.path={way}"]
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=_TIMEOUT,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
            finally:
                passt.terminate()
    return _found(done.stdout)


def measure(runs: int = RUNS) -> list[Pair]:
    """How much a second, here and in QEMU. FetchError if a package cannot be had."""
    packages = Packages()
    kernel = packages.vmlinux()
    with _server() as port, tempfile.TemporaryDirectory() as scratch:
        initrd, disk = _archive(packages, port), Path(scratch) / "disk"
        disk.write_bytes(bytes(_DISK_MIB << 20))
        for _ in range(WARM):
            # These also compile regions, which the later ones find on the disk.
            here(kernel, initrd, disk)
        return in_turns(lambda: here(kernel, initrd, disk), lambda: in_qemu(kernel, initrd, disk), runs)


def show(console: Console) -> None:
    """Measure and print; say so if this machine has no access to Debian's packages, or no passt."""
    try:
        if shutil.which("passt") is None:
            raise FetchError("needs Debian's passt")
        found = measure()
    except FetchError as error:
        console.print(f"disk and network of a Debian guest: not measured ({error})")
        return
    title = f"Disk and network of a Debian guest, medians of {RUNS} (ratio: ours over QEMU's)"
    console.print(table(title, [(one, one.ratio) for one in found], 0))
