"""A side of moves, here or inside the machine, whose guest is Debian's kernel with the checker of clocks."""

from __future__ import annotations

import socket
from typing import Any

from chronovisor.cli.clockcheck.guest_half import initramfs
from chronovisor.cli.demo.side import Side
from chronovisor.timebase.types import Ticks
from real_kvm.traveller import OUTSIDE

APPEND = "console=hvc0 cryptomgr.notests clockcheck.seconds=3600"
MEMORY = "256M"
SAMPLE = "cc1 sample"


class LinuxSide(Side):
    """Boots Linux, and tells what it printed here."""

    def boot_linux(self, kernel: bytes, origin: int) -> None:
        """Boot on a host of this origin; the guest stays at its first instruction."""
        self._host = host = self._host_of(origin)
        self.guest = host.boot(kernel, MEMORY, append=APPEND, initrd=initramfs("ppc64le"))

    def run_until(self, text: str, times: int, seconds: int) -> str:
        """Let the guest run until it has printed the text so often here; return all that it printed here.

        It goes on. After so many seconds the answer is what there is.
        """
        guest, _ = self._present()
        guest.pause()
        guest.run_until(lambda printed: printed.count(text) >= times, Ticks.from_ns(seconds * 10**9))
        guest.resume()
        return guest.console_text


_side = LinuxSide(provider="linux")


def do(what: str, arguments: dict[str, Any]) -> Any:
    """Inside the machine: have its side do it."""
    return _side.do(what, **arguments)


def fetch_and_boot(port: int, size: int) -> None:
    """Inside the machine: boot the kernel that is sent from outside."""
    with socket.create_connection((OUTSIDE, port), 30) as connection, connection.makefile("rb") as stream:
        _side.boot_linux(stream.read(size), 0)
