"""The same requests to our monitor and to QEMU's: answers and events in the same order."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Machine, Process

REQUESTS: list[Any] = [
    {"execute": "query-status"},
    {"execute": "qmp_capabilities"},
    {"execute": "qmp_capabilities", "id": 7},
    {"execute": "query-status"},
    {"execute": "human-monitor-command", "arguments": {"command-line": "info status"}},
    {"execute": "stop"},
    {"execute": "cont"},
    {"execute": "query-status", "id": [1, None]},
    {"execute": "cont"},
    {"execute": "stop", "id": {"a": 1}},
    {"execute": "query-status"},
    {"execute": "stop"},
    {"execute": "query-name"},
    {"execute": "nope", "id": 3},
    42,
    [1],
    {},
    {"x": 1},
    {"execute": 1},
    {"execute": "stop", "foo": 1},
    {"execute": "stop", "arguments": {"x": 1}},
    {"execute": "stop", "arguments": 3},
    {"execute": "migrate"},
    {"execute": "migrate", "arguments": {"uri": 4}},
    {"execute": "query-migrate"},
    {"execute": "migrate_cancel"},
    {"execute": "migrate-set-parameters", "arguments": {"downtime-limit": 100, "max-bandwidth": 1 << 30}},
    {"execute": "migrate-set-parameters", "arguments": {"nope": 1}},
    {"execute": "human-monitor-command", "arguments": {"command-line": "info status", "cpu-index": "1"}},
    {
        "execute": "migrate-set-capabilities",
        "arguments": {"capabilities": [{"capability": "x", "state": True}]},
    },
    {
        "execute": "migrate-set-capabilities",
        "arguments": {"capabilities": [{"capability": "events", "state": 1}]},
    },
    {"execute": "migrate-set-capabilities", "arguments": {"capabilities": 5}},
    {"execute": "migrate-set-capabilities", "arguments": {"capabilities": [5]}},
    {"execute": "migrate-set-capabilities", "arguments": {"capabilities": [{"state": True}]}},
    {"execute": "human-monitor-command", "arguments": {"command-line": "info status"}},
    {"execute": "human-monitor-command", "arguments": {"command-line": "nope"}},
    {"execute": "system_reset"},
    {"execute": "cont"},
    {"execute": "system_reset"},
    {"execute": "query-status"},
    {"execute": "query-commands", "arguments": {"a": 1}},
    {"execute": "quit"},
]
OURS = ("x-chronovisor", "timestamp")
"""Members that are not compared."""


def conversation(path: Path) -> list[Any]:
    """What a monitor says to the requests, each sent when the answer to the one before is there."""
    deadline = time.monotonic() + 60
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            break
        except OSError:
            client.close()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    client.settimeout(60)
    said: list[Any] = []
    with client, client.makefile("rb") as lines:
        assert "QMP" in json.loads(lines.readline())
        for request in REQUESTS:
            client.sendall(json.dumps(request).encode() + b"\n")
            while True:
                said.append(json.loads(lines.readline(), object_pairs_hook=_compared))
                if "event" not in said[-1]:
                    break
    return said


def _compared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in OURS}


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("qemu-system-ppc64") is None, reason="qemu-system-ppc64 is not installed")
def test_answers_and_events_are_qemus(machine: Machine, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    qemu = subprocess.Popen(
        [
            *("qemu-system-ppc64", "-M", "pseries", "-m", "256M", "-display", "none", "-nodefaults"),
            *("-S", "-name", "one", "-qmp", f"unix:{theirs},server=on,wait=off"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        options = ("--memory", "2M", "--name", "one", "--paused", "--qmp", f"unix:{ours}")
        machine.processes.append(process := Process("run", "demo-le.elf", *options))
        expected, found = conversation(theirs), conversation(ours)
        assert qemu.wait(60) == process.ends() == 0
    finally:
        qemu.kill()
        qemu.wait()
    assert found == expected
    assert sum("event" in message for message in found) == 6
