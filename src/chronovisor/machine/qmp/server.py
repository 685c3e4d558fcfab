"""The monitor's socket: clients that come and go, their requests one after the other, and events to all."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from chronovisor.machine.door import Door
from chronovisor.machine.qmp.json_stream import JsonStream
from chronovisor.machine.qmp.schema import Schema
from chronovisor.machine.qmp.session import Implementation, Session

MOST_CLIENTS: Final = 8
"""At a time; others wait until one of these has gone, as the second one does under QEMU."""
_MOST_EVENTS: Final = 1024
"""Events that wait for a client that does not read; a client with more is dropped."""
_MOST_ANSWERS: Final = 16
"""Answers that wait for a client to read; its further requests are not read until then."""
_PATIENCE: Final = 2.0
"""Seconds in which a client that does not read is given what it has not read, when the monitor ends."""


class QmpServer:
    """Answers clients that come in by the `door`, from `start` to `close`, by the `implementations` of the
    schema's commands.

    `greeting` is what a client is told first. ValueError unless each command has an implementation.
    """

    def __init__(
        self,
        door: Door,
        schema: Schema,
        implementations: Mapping[str, Implementation],
        greeting: dict[str, Any],
    ) -> None:
        declared = {command.name for command in schema.commands} - {"qmp_capabilities"}
        if declared != set(implementations):
            raise ValueError(f"declared or done, not both: {sorted(declared ^ set(implementations))}")
        self._door = door
        self._schema = schema
        self._implementations = implementations
        self._greeting = greeting
        self._clients: list[_Client] = []
        self._changed = threading.Condition()
        self._closing = False

    def start(self) -> None:
        """Answer clients from now on. Those that have connected before have waited for this."""
        threading.Thread(target=self._accept, name="monitor", daemon=True).start()

    def tell(self, event: str, data: Mapping[str, Any]) -> None:
        """Send an event to all clients. From any thread; it waits for none of them."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        told: dict[str, Any] = {
            "timestamp": {"seconds": seconds, "microseconds": nanoseconds // 1000},
            "event": event,
        }
        if data:
            told["data"] = dict(data)
        with self._changed:
            clients = list(self._clients)
        for client in clients:
            if client.hears_events:
                client.send(told)

    def wait_for_clients(self, enough: Callable[[], bool], stay: bool = False) -> None:
        """Wait until it is `enough`, which `look_again` has looked at, or no client is connected; with `stay`
        clients may come and go.
        """
        with self._changed:
            self._changed.wait_for(lambda: enough() or not (stay or self._clients))

    def look_again(self) -> None:
        """Have `wait_for_clients` look whether it is enough."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let requests that are being answered finish, and turn all clients away."""
        self._door.close()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            clients = list(self._clients)
        for client in clients:
            client.read_no_more()
        deadline = time.monotonic() + _PATIENCE
        for client in clients:
            client.finish(deadline)
        self._door.finish(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while self._wait_for_room():
            try:
                connection = self._door.accept()
            except OSError:
                return
            with self._changed:
                if self._closing:
                    connection.close()
                    return
                client = _Client(connection, Session(self._schema, self._implementations), self._gone)
                self._clients.append(client)
                client.send(self._greeting)
                # Before anybody else finds the client: only threads that run can be waited for.
                client.begin()

    def _wait_for_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._clients) < MOST_CLIENTS)
            return not self._closing

    def _gone(self, client: _Client) -> None:
        with self._changed:
            self._clients.remove(client)
            self._changed.notify_all()


class _Client:
    """A connection, with a thread that reads and answers and one that writes."""

    def __init__(self, connection: socket.socket, session: Session, gone: Callable[[_Client], None]) -> None:
        self._session = session
        self.hears_events = False
        """Whether it has been answered that it has negotiated: no event may come before that."""
        self._connection = connection
        self._gone = gone
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_EVENTS + _MOST_ANSWERS)
        self._room = threading.Semaphore(_MOST_ANSWERS)
        self._reader = threading.Thread(target=self._read, name="monitor client", daemon=True)
        self._writer = threading.Thread(target=self._write, name="monitor answers", daemon=True)

    def begin(self) -> None:
        # A client that is gone already ends the reader at once, which waits for the writer's end.
        self._writer.start()
        self._reader.start()

    def send(self, message: dict[str, Any]) -> None:
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._drop()

    def read_no_more(self) -> None:
        """Take no more requests."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def finish(self, deadline: float) -> None:
        """Send what waits, until `deadline` (of `time.monotonic`) at the latest, and end."""
        self._reader.join(max(0.0, deadline - time.monotonic()))
        self._drop()

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        stream = JsonStream()
        with contextlib.suppress(OSError):
            while data := self._connection.recv(65536):
                for request in stream.feed(data):
                    self._room.acquire()
                    self.send(self._session.answer(request))
                    self.hears_events = self._session.negotiated
        # The writer makes room: it writes, or its connection is broken and it throws away.
        self._waiting.put(None)
        self._writer.join()
        self._connection.close()
        self._gone(self)

    def _write(self) -> None:
        while (message := self._waiting.get()) is not None:
            # After an error what comes is thrown away: `_read` must not wait for room.
            try:
                self._connection.sendall(json.dumps(message).encode() + b"\r\n")
            except OSError:
                self._drop()
            if "event" not in message:
                self._room.release()
