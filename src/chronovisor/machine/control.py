"""Requests to a running guest's process, over the guest's socket: one line of JSON there, one line back, and
before that line any number of lines about progress.

A request is `{"command": …, …}`. `{"progress": …}` says how far it has come; the last line is
`{"answer": …}` or `{"error": line, "kind": what kind}`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, TypeAlias

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import claim, socket_path

RequestHandler: TypeAlias = Callable[[dict[str, Any]], Any]
"""Answers a request with something that JSON can say; or with a generator, which yields how far it has come
and returns the answer. A generator that is closed earlier has nobody left to tell, and may go on by itself.
"""

MAXIMUM_LINE: Final = 1 << 20
"""Bytes."""
_PEER_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: process, user, group."""
USAGE: Final = "usage"
"""The kind of errors in the request itself."""
FAILED: Final = "failed"
"""The kind of what was tried and failed; everything is as before."""
UNDECIDED: Final = "undecided"
"""The kind of moves whose outcome this process does not know."""
PATIENCE: Final = 10.0
"""Seconds for an answer that takes no time by itself; a process that is stopped gives none."""
INTERNAL: Final = "internal"
"""The kind of internal errors."""


class ControlError(Exception):
    """A request that was answered with an error: a line for people, of some `kind`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class ControlServer:
    """Answers for the guest `name` until it is closed, each request on a thread of its own.

    `handlers` are by command; more can be added while it runs. What a handler raises is sent back as one
    line: ControlError with its kind, MachineError, KvmError and RegisterError as the user's mistake.
    MachineError if the name is taken.
    """

    def __init__(self, name: str, handlers: Mapping[str, RequestHandler]) -> None:
        self.handlers = dict(handlers)
        self._path = socket_path(name)
        self._listener = claim(name)
        self._requests: set[threading.Thread] = set()
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self, timeout: float = 5.0) -> None:
        """Give the name back, and let requests that are being answered finish, for `timeout` seconds each."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._requests):
            if thread is not threading.current_thread():
                thread.join(timeout)

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="request", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10.0)
            line = _read_line(connection)
            if not line:
                # The other side only checked whether this process lives.
                return
            self._requests.add(threading.current_thread())
            try:
                with contextlib.closing(self._replies(line)) as replies:
                    for reply in replies:
                        connection.sendall(json.dumps(reply).encode() + b"\n")
            finally:
                self._requests.discard(threading.current_thread())

    def _replies(self, line: bytes) -> Generator[dict[str, Any], None, None]:
        """Give the lines that answer a request; the last of them is the answer or an error."""
        try:
            request = json.loads(line)
            handler = self.handlers.get(request["command"])
        except (ValueError, TypeError, KeyError, RecursionError):
            yield _error("this is no request", USAGE)
            return
        if handler is None:
            yield _error(f"it cannot {request['command']} now", USAGE)
            return
        try:
            answer = handler(request)
            if isinstance(answer, Generator):
                answer = yield from _as_progress(answer)
            yield {"answer": answer}
        except ControlError as error:
            yield _error(str(error), error.kind)
        except (MachineError, KvmError, RegisterError) as error:
            yield _error(str(error), USAGE)
        except Exception as error:
            yield _error(f"internal error: {type(error).__name__}: {error}", INTERNAL)


def ask(
    name: str,
    command: str,
    timeout: float | None = None,
    hear: Callable[[Any], None] = lambda progress: None,
    **request: Any,
) -> Any:
    """Have the process of the guest `name` do something; its answer. `hear` is told how far it has come.

    MachineError if no such guest runs, or it does not answer in `timeout` seconds; ControlError if its
    answer is an error.
    """
    path = socket_path(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command, **request}).encode() + b"\n")
            lines = connection.makefile("rb")
            while True:
                line = lines.readline(MAXIMUM_LINE)
                if not line.endswith(b"\n"):
                    raise MachineError(f"{name}: its process ended before it answered")
                answer = json.loads(line)
                if "progress" not in answer:
                    break
                hear(answer["progress"])
        except (FileNotFoundError, ConnectionRefusedError):
            raise MachineError(
                f"no guest named {name} runs here; `chronovisor ps` lists those that do"
            ) from None
        except TimeoutError:
            raise MachineError(
                f"{name}: its process has not answered for {timeout:g} s; it may be stopped"
            ) from None
        except OSError as error:
            raise MachineError(f"{name}: {error.strerror or error}") from None
    if "error" in answer:
        raise ControlError(answer["error"], answer["kind"])
    return answer["answer"]


def process_id(name: str) -> int:
    """Return the id of the process that answers for a name; MachineError if no process does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(socket_path(name)))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        except OSError:
            raise MachineError(
                f"no guest named {name} runs here; `chronovisor ps` lists those that do"
            ) from None
    process, _, _ = _PEER_CREDENTIALS.unpack(credentials)
    return int(process)


def _as_progress(steps: Generator[Any, None, Any]) -> Generator[dict[str, Any], None, Any]:
    with contextlib.closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as done:
                return done.value
            yield {"progress": step}


def _error(message: str, kind: str) -> dict[str, Any]:
    return {"error": message, "kind": kind}


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAXIMUM_LINE:
        piece = connection.recv(4096)
        if not piece:
            break
        line += piece
    return bytes(line)
