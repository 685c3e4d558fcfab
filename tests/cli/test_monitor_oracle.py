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
from certificates import Authority
from processes import Machine, Process

MEMORY_LINES = (
    *("p /x 0x10+5", "p/x 0", "print /d 0-1", "p /u -1", "p /o 8", "p /c 65", "p /c 39", "p /c 1"),
    *("p /d 7/2*3%4", "p /d 1+2&3|8", "p /x ~(1 + 2)", "p /d 0777", "p", "p /d 1/0", "p /d 1 2"),
    *("p /d zz", "p /d $nope", "p /d (1", "p /zz 1", "xp", "xp /2xg 0 0", "x /1xg $nope", "xp /9zz 0"),
    *(f"xp /{n}{letter}{size} 0x8000001" for n in (1, 9, 20) for letter in "xduoc" for size in "bhwg"),
    *("p /x 'a'", "p 08", "p /x 18446744073709551616", "p 99999999999999999999999", "p $", "p ()", "p 1.5"),
    *("info registers 5", "help info registers", "info status -x"),
    *("xp /4xg 0x10000000", "x /3xw 0x8000000", "x/2xg 0x8000000", "xp /0xb 0", "help xp", "help p"),
)
"""Lines about memory that is all zeros."""
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
    {"execute": "query-target"},
    {"execute": "query-memory-size-summary"},
    *(
        {"execute": "human-monitor-command", "arguments": {"command-line": line}}
        for line in (
            *(
                "info name",
                "c",
                "info status",
                "s",
                "stop",
                "help stop",
                "help cont",
                "help system_reset",
                "? quit",
            ),
            *(
                "help nope",
                "stop now",
                "infos",
                "info nope",
                "info name x",
                "help info status",
                "help info nope",
            ),
            *("system_reset", "", "  cont  "),
            *MEMORY_LINES,
        )
    ),
    {"execute": "stop"},
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
    {"execute": "query-dump"},
    {"execute": "human-monitor-command", "arguments": {"command-line": "info status", "cpu-index": 1}},
    {"execute": "human-monitor-command", "arguments": {"command-line": "nope", "cpu-index": -1}},
    {"execute": "memsave", "arguments": {"val": 0, "size": 8, "filename": "/nowhere/file"}},
    {"execute": "memsave", "arguments": {"val": 1 << 40, "size": 8, "filename": "/dev/shm/no"}},
    {"execute": "memsave", "arguments": {"val": 0, "size": 8, "filename": "/dev/shm/no", "cpu-index": 1}},
    {"execute": "pmemsave", "arguments": {"val": 0, "size": 8, "filename": "/nowhere/file"}},
    {"execute": "pmemsave", "arguments": {"val": 0, "size": 8}},
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


def requests_with_files(directory: str) -> list[Any]:
    """Requests about dumps and TLS for moves, whose files are in the directory."""
    made = {"qom-type": "tls-creds-x509"}
    good = made | {"dir": directory}
    added = [
        {},
        {"qom-type": "nope", "id": "x"},
        {"qom-type": 4, "id": "x"},
        made,
        made | {"id": "x"},
        made | {"id": "x", "dir": "/nowhere"},
        made | {"id": "x", "dir": "/nowhere", "endpoint": "server"},
        good | {"id": "x", "endpoint": "nope"},
        good | {"id": "x", "nope": 1},
        good | {"id": "x", "verify-peer": 1},
        *(good | {"id": name} for name in ("", "1x", "a b", "c0", "c0")),
        good | {"id": "s0", "endpoint": "server", "verify-peer": True},
    ]
    dump = {"paging": False, "protocol": f"file:{directory}/core"}
    memory = {"val": 0, "size": 4096, "filename": f"{directory}/memory"}
    return [
        {"execute": "dump-guest-memory", "arguments": dump},
        {"execute": "query-dump"},
        {"execute": "stop"},
        {"execute": "dump-guest-memory", "arguments": dump},
        *({"execute": command, "arguments": memory} for command in ("memsave", "pmemsave")),
        *({"execute": "object-add", "arguments": given} for given in added),
        *({"execute": "object-del", "arguments": given} for given in ({}, {"id": 3}, {"id": "x"})),
        *(
            {"execute": "migrate-set-parameters", "arguments": given}
            for given in (
                {"tls-creds": 3},
                {"tls-creds": "c0", "tls-hostname": "x", "tls-authz": ""},
                {"tls-creds": None},
            )
        ),
        *({"execute": "object-del", "arguments": {"id": name}} for name in ("c0", "c0", "s0")),
    ]


OURS = ("x-chronovisor", "timestamp")
"""Members that are not compared."""


class Client:
    """A client of a monitor that is about to listen. It keeps the events that come between answers."""

    def __init__(self, path: Path) -> None:
        deadline = time.monotonic() + 60
        self._socket = socket.socket(socket.AF_UNIX)
        while self._socket.connect_ex(str(path)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self._socket.settimeout(60)
        self._lines = self._socket.makefile("rb")
        assert "QMP" in json.loads(self._lines.readline())
        self.said: list[Any] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, request: Any) -> Any:
        """Send a request and return its answer; it is in `said`, behind the events that came before it."""
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            self.said.append(json.loads(self._lines.readline(), object_pairs_hook=_compared))
            if "event" not in self.said[-1]:
                return self.said[-1]

    def hear(self) -> None:
        """Wait for one more event."""
        self.said.append(json.loads(self._lines.readline(), object_pairs_hook=_compared))

    def ask(self, command: str, **arguments: Any) -> Any:
        return self.send({"execute": command, "arguments": arguments})["return"]

    @property
    def events(self) -> list[str]:
        """The events by their names, those of moves by their status."""
        told = (said for said in self.said if "event" in said)
        return [event.get("data", {}).get("status", event["event"]) for event in told]


def conversation(path: Path, requests: list[Any]) -> list[Any]:
    """What a monitor says to the requests, each sent when the answer to the one before is there."""
    with Client(path) as client:
        for request in requests:
            client.send(request)
        return client.said


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
        options = ("--memory", "256M", "--name", "one", "--paused", "--qmp", f"unix:{ours}")
        machine.processes.append(process := Process("run", "demo-le.elf", *options))
        directory = Authority(tmp_path).directory("good")
        requests = [*REQUESTS[:-1], *requests_with_files(directory), REQUESTS[-1]]
        expected, found = conversation(theirs, requests), conversation(ours, requests)
        assert qemu.wait(60) == process.ends() == 0
    finally:
        qemu.kill()
        qemu.wait()
    assert found == expected
    assert sum("event" in message for message in found) == 16


def moved(source: Path, destination: Path, way: str) -> tuple[list[str], list[str], list[Any]]:
    """Move a guest; the events at its source and its destination, and each side's statuses."""
    with Client(source) as one, Client(destination) as two:
        statuses = []
        for client in (one, two):
            client.ask("qmp_capabilities")
            events = {"capability": "events", "state": True}
            client.ask("migrate-set-capabilities", capabilities=[events])
            statuses.append(client.ask("query-status"))
        one.ask("migrate", uri=way)
        while one.ask("query-migrate").get("status") not in ("completed", "failed"):
            time.sleep(0.05)
        # The destination may still be on its way out of the move.
        while two.ask("query-status")["status"] == "inmigrate":
            time.sleep(0.05)
        for client in (one, two):
            statuses += [client.ask("query-status"), client.ask("query-migrate")["status"]]
        for client in (one, two):
            client.ask("quit")
        return one.events, two.events, statuses


@pytest.mark.oracle
@pytest.mark.skipif(shutil.which("qemu-system-ppc64") is None, reason="qemu-system-ppc64 is not installed")
def test_a_move_is_told_as_by_qemu(machine: Machine, tmp_path: Path) -> None:
    """QEMU also tells of each round of memory (MIGRATION_PASS), we of `device`, as the guest has stopped."""
    common = ("qemu-system-ppc64", "-M", "pseries", "-m", "256M", "-display", "none", "-nodefaults", "-qmp")
    way = f"unix:{tmp_path}/way"
    qemus = [
        subprocess.Popen(
            [*common, f"unix:{tmp_path}/{name},server=on,wait=off", *more], stderr=subprocess.DEVNULL
        )
        for name, more in (("q1", ()), ("q2", ("-incoming", way)))
    ]
    try:
        theirs = moved(tmp_path / "q1", tmp_path / "q2", way)
        assert [qemu.wait(60) for qemu in qemus] == [0, 0]
    finally:
        for qemu in qemus:
            qemu.kill()
            qemu.wait()
    source = machine.run("one", "--qmp", f"unix:{tmp_path}/o1")
    there, address = machine.receive("two", "--qmp", f"unix:{tmp_path}/o2", at=f"unix:{tmp_path}/place")
    ours = moved(tmp_path / "o1", tmp_path / "o2", address)
    assert source.ends() == there.ends() == 0
    assert "MIGRATION_PASS" in theirs[0]
    assert "device" in ours[0]
    assert [event for event in ours[0] if event != "device"] == [
        e for e in theirs[0] if e != "MIGRATION_PASS"
    ]
    assert ours[1:] == theirs[1:]
