"""Debian's kernel uses a virtual disk and a network card by its own drivers, also while it moves."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from chronovisor.cli.kernel_modules import loading
from chronovisor.machine.console import Console
from chronovisor.machine.ending import EndReason
from chronovisor.machine.guest import Guest
from chronovisor.machine.host import Host
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.migration.move import move
from linux_guest.guests import BOOT_SECONDS, COMPLAINTS, OWN, PATIENT, TRIXIE, Kernel, Lines, busybox
from linux_guest.modules import device_modules

pytestmark = pytest.mark.oracle
SIZE = 64 << 20
SERVED = 512 << 10
"""Bytes of the file that the guest fetches."""
MUCH = 8 << 20
"""Bytes that go both ways in segments of 1,500 bytes."""
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
{loading}
ifconfig lo up
# While the card is up, ibmveth may lose its buffer to a new MTU in the middle of a frame, and panics.
set_mtu() {{ ifconfig eth0 down; ifconfig eth0 mtu $1 up; route add default gw $(cat /tmp/router); }}
ifconfig eth0 up
udhcpc -i eth0 -s /bin/configure -O mtu -q -n >/dev/null 2>&1
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


CONFIGURE = b"""#!/bin/sh
[ "$1" = bound ] || exit 0
ifconfig $interface down
ifconfig $interface ${mtu:+mtu $mtu}
ifconfig $interface $ip netmask $subnet up
route add default gw $router
echo $router >/tmp/router
"""
"""What BusyBox's DHCP client calls with the addresses that it was given."""


def archive(commands: str, kernel: Kernel = OWN) -> bytes:
    found = device_modules(kernel)
    init = INIT.format(loading=loading(found), commands=commands)
    return busybox(init, {**found, "configure": CONFIGURE})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The port of a server on this machine's loopback that has a file of random bytes."""
    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "random").write_bytes(random.Random(0).randbytes(SERVED))
    (directory / "much").write_bytes(much())
    handler = partial(QuietHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def much() -> bytes:
    return random.Random(1).randbytes(MUCH)


@pytest.fixture
def taker() -> Iterator[tuple[int, Future[bytes]]]:
    """A port of this machine's loopback, and what the one who connects to it sends."""
    taken = Future[bytes]()

    def take() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as file:
                taken.set_result(file.read())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1], taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def read_file(disk: Path, name: str) -> bytes:
    """Return a file's content by the host's own tools."""
    shown = subprocess.run(["debugfs", "-R", f"cat {name}", str(disk)], check=True, capture_output=True)
    return shown.stdout


def boot(host: Host, port: int, lines: Lines, work: str, kernel: Kernel = OWN) -> Guest:
    append, initrd = (
        f"console=hvc0 cryptomgr.notests quiet {PATIENT}",
        archive(work.replace("PORT", str(port)), kernel),
    )
    return host.boot(kernel.vmlinux(), "256M", 2, append=append, initrd=initrd, console=Console(lines))


WORK = """
echo
ifconfig eth0 | grep -o "MTU:[0-9]*"
echo "listening"
echo "said by the guest" | nc -l -p 8080 >/tmp/said
cat /tmp/said
wget -q http://$(cat /tmp/router):PORT/random
sha256sum random >sum
cp /bin/busybox echo
sync
echo 3 >/proc/sys/vm/drop_caches
sha256sum -c sum
./echo "executed from the disk"
(read line; touch /tmp/stop) </dev/hvc0 &
fetch() { timeout 2 wget -q -O /dev/null http://$(cat /tmp/router):PORT/random; }
(cd /; while [ ! -e /tmp/stop ]; do fetch && echo "fetched meanwhile"; done) &
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
wget -q -O - http://$(cat /tmp/router):PORT/random | cmp - random && echo "served again"
"""
MOVES = 2
MTU = 65512
"""What passt offers: Linux's driver takes no more than one byte more."""


def talk(port: int) -> bytes:
    """Say something to who listens behind a port of this machine, and return the answer."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        # Nobody may listen in the guest yet.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(b"said by the host\n")
            connection.shutdown(socket.SHUT_WR)
            if answer := connection.recv(100):
                return answer
        time.sleep(0.1)
    return b""


def test_a_guest_that_moves_with_its_disk_and_a_network(disk: Path, server: int) -> None:
    lines = Lines()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hosts = [Host(tb_origin=number << 50) for number in range(2)]
    # A port of this machine leads to one guest at a time.
    for host, more in zip(hosts, (f",tcp={port}:8080", ""), strict=True):
        host.attachments = Attachments.parse([str(disk)], f"passt{more}")
    guest = boot(hosts[0], server, lines, WORK)
    assert guest.run_until("listening\r\n")
    guest.resume()
    assert talk(port) == b"said by the guest\n"
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
    assert {"random: OK", "executed from the disk", "served again"} <= set(lines.lines), lines.text
    assert {"said by the host", f"MTU:{MTU}", "fetched meanwhile"} <= set(lines.lines)
    assert "differs" not in lines.text
    (copied,) = re.findall(r"copied: (\d+)", lines.text)
    assert int(copied) > 0
    assert not COMPLAINTS.search(lines.text)
    assert read_file(disk, "echo")[:4] == b"\x7fELF"
    assert read_file(disk, "random") == read_file(disk, "copy1") == random.Random(0).randbytes(SERVED)


BOTH_WAYS = """
mkdir -p /sys
mount -t sysfs sys /sys
set_mtu 1500
frames() { cat /sys/class/net/eth0/statistics/$1_packets; }
came=$(frames rx)
wget -q -O /tmp/much http://$(cat /tmp/router):PORT/much
came=$(($(frames rx) - came))
went=$(frames tx)
nc $(cat /tmp/router) TAKER -e cat /tmp/much
echo
echo "came: $came, went: $(($(frames tx) - went))"
sha256sum /tmp/much
"""


@pytest.mark.parametrize("kernel", [OWN, pytest.param(TRIXIE, marks=pytest.mark.soak)], ids=["own", "trixie"])
def test_large_frames_go_both_ways(
    kernel: Kernel, disk: Path, server: int, taker: tuple[int, Future[bytes]]
) -> None:
    """passt and the guest make segments of 1,460 bytes; most come merged, and go in large frames."""
    lines, (port, taken) = Lines(), taker
    with Host() as host:
        host.attachments = Attachments.parse([str(disk)], "passt")
        guest = boot(host, server, lines, BOTH_WAYS.replace("TAKER", str(port)), kernel)
        assert guest.run(BOOT_SECONDS).reason is EndReason.POWER_OFF, lines.text
    ((came, went),) = re.findall(r"came: (\d+), went: (\d+)", lines.text)
    assert f"{sha256(much()).hexdigest()}  /tmp/much" in lines.lines
    assert taken.result(0) == much()
    segments = MUCH // 1460
    assert 0 < int(came) < segments // 2
    assert 0 < int(went) < segments // 2
    assert not COMPLAINTS.search(lines.text)


PING = """
ifconfig eth0 192.0.2.2
echo
ping -c 3 192.0.2.1 >/tmp/short && echo "answered"
ping -c 3 -s 8000 192.0.2.1 >/tmp/long && echo "answered in pieces"
"""
TAP = """
ip tuntap add kept mode tap
ip address add 192.0.2.1/24 dev kept
ip link set kept up
exec "$@"
"""


@pytest.mark.soak
def test_a_tap_device_of_the_machine(disk: Path, tmp_path: Path) -> None:
    """In a network namespace of its own, so nothing of the machine's network changes."""
    apart = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(archive(PING))
    command = [sys.executable, "-m", "chronovisor", "run", "--kernel", str(OWN.vmlinux())]
    command += ["--initrd", str(initrd), "--memory", "256M", "--timeout", str(BOOT_SECONDS)]
    command += ["--append", "console=hvc0 cryptomgr.notests quiet", "--disk", str(disk), "--net", "tap=kept"]
    done = subprocess.run(
        [*apart, "sh", "-ec", TAP, "sh", *command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {"answered", "answered in pieces"} <= set(done.stdout.splitlines()), done.stdout
