"""Inside the machine: the side of a move that the kernel's KVM runs."""

from __future__ import annotations

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chronovisor.cli.demo.side import REAL_PATIENCE, Side
from chronovisor.cli.demo.watched import ask_for_report
from chronovisor.kvm.interface import HostOptions
from chronovisor.kvm.linux.system import LinuxSystem
from chronovisor.machine.host import Host
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import opened, restore
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
        with Host(provider="linux") as host:
            with opened(saved) as reader:
                restored = restore(reader, host)
            guest = restored.start()
            report = ask_for_report(guest, REAL_PATIENCE)
            snapshot(guest, saved)
        connection.sendall(saved.read_bytes())
    return asdict(report)
