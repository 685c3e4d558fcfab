"""A guest saved by the embedded hypervisor goes on under a real kernel, is saved there, and goes on here."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from chronovisor.cli.demo.side import REAL_PATIENCE
from chronovisor.cli.demo.watched import IMAGE, ask_for_report
from chronovisor.machine.host import Host
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import opened, restore
from real_kvm.machine import Machine
from real_kvm.reports import check_numbers, check_report

pytestmark = pytest.mark.real_kvm


def test_a_snapshot_goes_on_under_the_other_provider(machine: Machine, tmp_path: Path) -> None:
    machine.call("real_kvm.traveller:set_up")
    first, second = tmp_path / "first", tmp_path / "second"
    with Host(tb_origin=1 << 60) as host:
        guest = host.boot(IMAGE, "16M", tb_offset=5 << 40)
        ask_for_report(guest, REAL_PATIENCE)
        snapshot(guest, first)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        machine.begin("real_kvm.traveller:run_snapshot", server.getsockname()[1])
        connection, _ = server.accept()
        with connection:
            content = first.read_bytes()
            connection.sendall(f"{len(content)}\n".encode() + content)
            connection.settimeout(60)
            with connection.makefile("rb") as stream:
                second.write_bytes(stream.read())
        check_report(machine.finish("real_kvm.traveller:run_snapshot"))
    with Host(tb_origin=77) as host, opened(second) as reader:
        guest = restore(reader, host).start()
        report = ask_for_report(guest, REAL_PATIENCE)
        assert report.memory_intact
        check_numbers(report.numbers, report.text)
