"""Answers that take time: how far they have come is told in lines before them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chronovisor.machine.control import FAILED, ControlError, ControlServer, Conversation, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import claim, socket_path


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHRONOVISOR_RUN_DIR", str(tmp_path / "run"))


def count(request: dict[str, Any]) -> Generator[int, None, str]:
    yield from range(request["to"])
    if request["to"] > 5:
        raise ControlError("that is too far", FAILED)
    return "done"


def test_progress_is_heard_in_order_and_then_the_answer() -> None:
    heard: list[int] = []
    with ControlServer("one", {"count": count, "ps": lambda request: "at once"}):
        assert ask("one", "count", hear=heard.append, to=3) == "done"
        assert heard == [0, 1, 2]
        assert ask("one", "count", to=0) == "done"
        assert ask("one", "ps", hear=heard.append) == "at once"
        assert heard == [0, 1, 2]


def test_an_error_that_comes_late_is_the_answer() -> None:
    heard: list[int] = []
    with ControlServer("one", {"count": count}), pytest.raises(ControlError, match="too far") as caught:
        ask("one", "count", hear=heard.append, to=6)
    assert caught.value.kind == FAILED
    assert heard == list(range(6))


def test_a_generator_whose_hearer_has_gone_is_closed() -> None:
    closed = threading.Event()

    def for_ever(request: dict[str, Any]) -> Generator[str, None, None]:
        try:
            while True:
                yield "x" * 10_000
        finally:
            closed.set()

    with ControlServer("one", {"go": for_ever}):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path("one")))
            connection.sendall(b'{"command": "go"}\n')
            assert json.loads(connection.makefile("rb").readline()) == {"progress": "x" * 10_000}
        assert closed.wait(60)


def test_a_process_that_ends_in_the_middle_is_noticed() -> None:
    heard: list[int] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 10)
            connection.sendall(b'{"progress": 1}\n{"progress": ')

    with claim("one") as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with pytest.raises(MachineError, match="ended before it answered"):
            ask("one", "go", hear=heard.append)
    assert heard == [1]


@pytest.mark.parametrize(
    "line",
    [b"[" * 500_000, b'{"command":' * 50_000, b"{}", b"[]", b'{"command": []}', b"\xff", b"no JSON"],
    ids=["deep", "deep objects", "nothing", "a list", "a list for a command", "no text", "no JSON"],
)
def test_what_is_no_request_is_told_so(line: bytes) -> None:
    with ControlServer("one", {"count": count}), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(str(socket_path("one")))
        peer.sendall(line + b"\n")
        assert json.loads(peer.makefile().readline())["error"] == "this is no request"


def test_a_process_that_does_not_answer_is_given_up() -> None:
    with claim("one"), pytest.raises(MachineError, match=r"has not answered for 0.1 s"):
        # It listens, and nobody accepts: as when its process is stopped.
        ask("one", "reg", 0.1)


def test_all_that_connected_before_the_end_are_answered() -> None:
    """A process gives its name back as its guest ends, while others come to ask how it ended."""
    asked = 0
    for _ in range(100):
        server = ControlServer("one", {"wait": lambda request: "it ended"})
        with ExitStack() as stack:
            connections = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
            for connection in connections:
                connection.connect(str(socket_path("one")))
            closing = threading.Thread(target=server.close)
            closing.start()
            for connection in connections:
                connection.sendall(b'{"command": "wait"}\n')
                with connection.makefile("rb") as lines:
                    assert json.loads(lines.readline()) == {"answer": "it ended"}
                asked += 1
            closing.join()
    assert asked == 300


def test_a_conversation_whose_other_side_is_gone_ends() -> None:
    """As when `console` is interrupted before it is answered: otherwise it would be attached for ever."""
    gone, held = threading.Event(), threading.Event()

    def begin(request: dict[str, Any]) -> Conversation:
        assert gone.wait(60)
        return Conversation({}, lambda connection: held.set())

    with ControlServer("one", {"console": begin}):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_path("one")))
            connection.sendall(b'{"command": "console"}\n')
        gone.set()
        assert held.wait(60)
