"""Inside the machine: the side of a move that the kernel's KVM runs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from conformance.guests import go_on

from chronovisor.cli.demo.side import Side
from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.linux.system import LinuxSystem
from chronovisor.timebase.clock import RealTime
from real_kvm.inside import network

PORT = 7000
OUTSIDE = "10.0.2.2"
"""What QEMU's own network calls the machine that it runs on."""

_side = Side(provider="linux")


def set_up() -> None:
    """Have a network, and kicks that work from every thread."""
    network()
    LinuxSystem(HostOptions(source=RealTime())).close()


def do(what: str, arguments: dict[str, Any]) -> Any:
    """Have the side do it; its answer."""
    return _side.do(what, **arguments)


def ticks() -> int:
    """What the machine's timebase reads."""
    from chronovisor.kvm.linux.clock import timebase_reader

    return timebase_reader()()


def run_snapshot(port: int) -> dict[str, Any]:
    """Fetch a snapshot from outside, have its guest go on for a while, save it, and send that back."""
    saved = Path("/tmp/guest.snapshot")
    with socket.create_connection((OUTSIDE, port), 30) as connection:
        with connection.makefile("rb") as stream:
            saved.write_bytes(stream.read(int(stream.readline())))
        report = go_on("linux", saved)
        connection.sendall(saved.read_bytes())
    return report
