"""A guest saved by the embedded hypervisor goes on under a real kernel, is saved there, and goes on here."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from conformance.guests import go_on, save

from real_kvm.machine import Machine
from real_kvm.reports import check_report

pytestmark = pytest.mark.real_kvm


def test_a_snapshot_goes_on_under_the_other_provider(machine: Machine, tmp_path: Path) -> None:
    machine.call("real_kvm.traveller:set_up")
    saved = tmp_path / "saved"
    check_report(save("embedded", saved))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        machine.begin("real_kvm.traveller:run_snapshot", server.getsockname()[1])
        connection, _ = server.accept()
        with connection:
            content = saved.read_bytes()
            connection.sendall(f"{len(content)}\n".encode() + content)
            connection.settimeout(60)
            with connection.makefile("rb") as stream:
                saved.write_bytes(stream.read())
        check_report(machine.finish("real_kvm.traveller:run_snapshot"))
    check_report(go_on("embedded", saved))
