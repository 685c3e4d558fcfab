"""The monitor's server: clients that do not read hold nobody up, and cost little."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronovisor.machine.door import OpenDoor
from chronovisor.machine.qmp.schema import Command, Schema
from chronovisor.machine.qmp.server import QmpServer, _Client
from chronovisor.machine.qmp.session import Session

SCHEMA = Schema((Command("qmp_capabilities", ""), Command("work", "", returns="str")), (), ())
NEGOTIATE, WORK = b'{"execute":"qmp_capabilities"}', b'{"execute":"work"}'


class Server:
    def __init__(self, path: Path) -> None:
        self.path = path
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        self.done = 0
        self.server = QmpServer(OpenDoor([listener]), SCHEMA, {"work": self._work}, {"QMP": {}})
        self.server.start()

    def _work(self, given: dict[str, Any]) -> str:
        self.done += 1
        return "x" * 10_000

    def client(self) -> socket.socket:
        """A client that has negotiated."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(self.path))
        client.sendall(NEGOTIATE)
        with client.makefile("rb") as lines:
            assert json.loads(lines.readline()) == {"QMP": {}}
            assert json.loads(lines.readline()) == {"return": {}}
        return client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "qmp")
    yield made
    made.server.close()


def test_each_command_is_done_or_the_server_does_not_start() -> None:
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(ValueError, match="work"):
        QmpServer(OpenDoor([listener]), SCHEMA, {}, {})


def test_a_client_that_reads_no_events_is_dropped_and_others_go_on(server: Server) -> None:
    deaf, other = server.client(), server.client()
    for number in range(5000):
        server.server.tell("NEWS", {"number": number})
        if number % 100 == 99:
            # The other one keeps up.
            heard = b""
            while heard.count(b"\n") < 100:
                heard += other.recv(65536)
    deaf.settimeout(60)
    received = b""
    while data := deaf.recv(1 << 20):
        received += data
    assert 100 < received.count(b"\n") < 5000
    other.sendall(WORK)
    assert other.recv(65536).startswith(b'{"return": "xxx')


def test_a_client_that_reads_no_answers_is_not_served_and_is_left_behind_at_the_end(server: Server) -> None:
    deaf = server.client()
    deaf.sendall(WORK * 500)
    deadline, last = time.monotonic() + 60, -1
    while server.done < 16 or server.done != last:
        assert time.monotonic() < deadline
        last = server.done
        time.sleep(0.1)
    assert server.done < 200
    server.server.tell("NEWS", {})
    server.server.close()
    server.server.wait_for_clients(lambda: False)


def test_clients_that_are_gone_at_once_leave_nothing_behind(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is gone before its threads run: both threads end, in whatever order they start."""
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    start = threading.Thread.start

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        time.sleep(0.01)

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.path))
    server.client().close()
    assert not failed


def test_a_client_that_comes_as_the_server_closes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    came = threading.Event()
    begin = _Client.begin

    def begin_late(client: _Client) -> None:
        came.set()
        time.sleep(0.1)
        begin(client)

    monkeypatch.setattr(_Client, "begin", begin_late)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.path))
        assert came.wait(60)
        server.server.close()


def test_an_event_during_the_negotiation_does_not_come_before_its_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Session.answer

    def answer_beside_an_event(session: Session, request: Any) -> dict[str, Any]:
        answered = answer(session, request)
        server.server.tell("NEWS", {})
        return answered

    monkeypatch.setattr(Session, "answer", answer_beside_an_event)
    # It looks at what it hears.
    server.client().close()
