"""Debian's kernel as a guest of the linux provider: it boots there, and a booted one moves in and back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chronovisor.cli.debian import Packages
from chronovisor.report.clock_check.check import ClockCheck
from real_kvm.linux_side import SAMPLE, LinuxSide
from real_kvm.machine import Machine
from real_kvm.test_move import ORIGIN
from real_kvm.traveller import OUTSIDE, PORT

pytestmark = pytest.mark.real_kvm
SECONDS = 90
"""More than any step takes on a machine that does much else."""
DOWNTIME = 30.0
"""Seconds that the guest may stand still for a move out of the emulated machine."""


@pytest.fixture(scope="module")
def kernel() -> Path:
    return Packages().vmlinux()


@pytest.fixture
def inside(machine: Machine) -> Iterator[Machine]:
    machine.call("real_kvm.traveller:set_up")
    yield machine
    machine.call("real_kvm.linux_side:do", "close", {})


def test_debian_boots_under_the_kernels_own_kvm(inside: Machine, kernel: Path) -> None:
    content = kernel.read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        inside.begin("real_kvm.linux_side:fetch_and_boot", server.getsockname()[1], len(content))
        connection, _ = server.accept()
        with connection:
            connection.sendall(content)
            inside.finish("real_kvm.linux_side:fetch_and_boot", SECONDS)
    last = "Switched to clocksource timebase"
    begun = time.monotonic()
    printed = inside.call(
        "real_kvm.linux_side:do",
        "run_until",
        {"text": last, "times": 1, "seconds": SECONDS},
        limit=SECONDS + 30,
    )
    print(f"\n  to its clocksource in {time.monotonic() - begun:.1f} s")
    assert f"Linux version {kernel.name.removeprefix('vmlinux-')}" in printed
    assert "Using radix MMU under hypervisor" in printed
    assert last in printed


def test_debian_moves_into_the_kernel_and_back(inside: Machine, kernel: Path) -> None:
    """Its clocks never go back, and its timers come neither early nor never."""
    outside = LinuxSide(engine="regions")
    check = ClockCheck()
    samples = []

    def look(printed: str) -> None:
        samples.append(printed.count(SAMPLE))
        for line in printed.encode().splitlines():
            check.line(line, time.monotonic_ns())

    try:
        outside.boot_linux(kernel.read_bytes(), ORIGIN)
        look(outside.run_until(SAMPLE, 10, SECONDS))
        begun = time.monotonic()
        expected = {"origin": 0, "address": f"tcp:0.0.0.0:{PORT}", "insecure": True}
        inside.call("real_kvm.linux_side:do", "expect", expected)
        outside.send(f"tcp:127.0.0.1:{inside.ports[PORT]}")
        records = [inside.call("real_kvm.linux_side:do", "taken", {}, limit=SECONDS)["record"]]
        print(f"\n  went inside in {time.monotonic() - begun:.1f} s")
        wanted = {"text": SAMPLE, "times": 10, "seconds": SECONDS}
        look(inside.call("real_kvm.linux_side:do", "run_until", wanted, limit=SECONDS + 30))
        begun = time.monotonic()
        port = outside.expect(0).rsplit(":", 1)[1]
        sent = {"address": f"tcp:{OUTSIDE}:{port}", "insecure": True, "downtime": DOWNTIME}
        inside.call("real_kvm.linux_side:do", "send", sent, limit=SECONDS)
        records.append(outside.taken()["record"])
        print(f"  came back in {time.monotonic() - begun:.1f} s")
        look(outside.run_until(SAMPLE, 10, SECONDS))
    finally:
        outside.close()
    assert min(samples) >= 10, samples
    report = check.report()
    # What is printed between a look and the move that follows is not seen, nor are the lines cut by that.
    assert report.samples >= 3 * 8
    assert not report.backs
    assert not report.disagreements
    assert (report.timers.early, report.timers.lost) == (0, 0)
    for record in records:
        assert abs(record["error_ticks"]) <= record["error_bound_ticks"]
