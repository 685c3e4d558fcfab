"""Requests to a running guest's process, over the guest's socket: one line of JSON there, one line back, and
before that line any number of lines about progress.

A request is `{"command": …, …}`. `{"progress": …}` says how far it has come; the last line is
`{"answer": …}` or `{"error": line, "kind": what kind}`. After some answers the connection stays, for bytes
that are no lines (`Conversation`).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, TypeAlias

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError
from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import claim, socket_path

RequestHandler: TypeAlias = Callable[[dict[str, Any]], Any]
"""Answers a request with something that JSON can say; or with a generator, which yields how far it has come
and returns the answer. A generator that is closed earlier has nobody left to tell, and may go on by itself.
An answer can be a `Conversation`.
"""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An answer after which the connection belongs to `hold` until that returns.

    The other side may be gone by then.
    """

    answer: Any
    hold: Callable[[socket.socket], None]


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


class NotRunningError(MachineError):
    """No process answers for a guest."""


class ProcessEndedError(MachineError):
    """A guest's process ended before it answered."""


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
        self._accepting = threading.Thread(target=self._accept, name="control", daemon=True)
        self._accepting.start()

    def close(self, timeout: float = 5.0) -> None:
        """Give the name back. Requests of all that have connected are answered still, for `timeout` seconds
        each.
        """
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # Those that had connected before are accepted first.
        self._accepting.join(timeout)
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
            request = threading.Thread(target=self._serve, args=(connection,), name="request", daemon=True)
            self._requests.add(request)
            request.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10.0)
                line = _read_line(connection)
                if not line:
                    # The other side only checked whether this process lives.
                    return
                with contextlib.closing(self._replies(line, connection)) as replies:
                    for reply in replies:
                        connection.sendall(json.dumps(reply).encode() + b"\n")
        finally:
            self._requests.discard(threading.current_thread())

    def _replies(self, line: bytes, connection: socket.socket) -> Generator[dict[str, Any], None, None]:
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
            if not isinstance(answer, Conversation):
                yield {"answer": answer}
                return
        except ControlError as error:
            yield _error(str(error), error.kind)
        except (MachineError, KvmError, RegisterError) as error:
            yield _error(str(error), USAGE)
        except Exception as error:
            yield _error(f"internal error: {type(error).__name__}: {error}", INTERNAL)
        else:
            try:
                yield {"answer": answer.answer}
            finally:
                # Even if the other side has gone meanwhile: what has begun for it is to end.
                answer.hold(connection)


def ask(
    name: str,
    command: str,
    timeout: float | None = None,
    hear: Callable[[Any], None] = lambda progress: None,
    **request: Any,
) -> Any:
    """Have the process of the guest `name` do something; its answer. `hear` is told how far it has come.

    NotRunningError if no such guest runs, ProcessEndedError if its process ends meanwhile, MachineError if
    nothing comes for `timeout` seconds; ControlError if its answer is an error.
    """
    with _connected(name, timeout) as connection, connection.makefile("rb") as lines:
        return _asked(name, connection, lines, {"command": command, **request}, hear)


@contextlib.contextmanager
def converse(name: str, command: str, timeout: float, **request: Any) -> Iterator[tuple[Any, socket.socket]]:
    """Have the process of the guest `name` begin a conversation: its answer, and the connection meanwhile.

    Errors as `ask`.
    """
    # Without a buffer: what follows the answer is not for it.
    with _connected(name, timeout) as connection, connection.makefile("rb", buffering=0) as lines:
        answer = _asked(name, connection, lines, {"command": command, **request})
        connection.settimeout(None)
        yield answer, connection


@contextlib.contextmanager
def _connected(name: str, timeout: float | None) -> Iterator[socket.socket]:
    path = socket_path(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise _nobody(name) from None
        except TimeoutError:
            raise _silent(name, timeout) from None
        except OSError as error:
            raise MachineError(f"{name}: {error.strerror or error}") from None
        yield connection


def _asked(
    name: str,
    connection: socket.socket,
    lines: BinaryIO | socket.SocketIO,
    request: dict[str, Any],
    hear: Callable[[Any], None] = lambda progress: None,
) -> Any:
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = lines.readline(MAXIMUM_LINE)
            if not line.endswith(b"\n"):
                raise _ended(name)
            answer = json.loads(line)
            if "progress" not in answer:
                break
            hear(answer["progress"])
    except TimeoutError:
        raise _silent(name, connection.gettimeout()) from None
    except (BrokenPipeError, ConnectionResetError):
        raise _ended(name) from None
    except OSError as error:
        raise MachineError(f"{name}: {error.strerror or error}") from None
    if "error" in answer:
        raise ControlError(answer["error"], answer["kind"])
    return answer["answer"]


def _nobody(name: str) -> NotRunningError:
    return NotRunningError(f"no guest named {name} runs here; `chronovisor ps` lists those that do")


def _ended(name: str) -> ProcessEndedError:
    return ProcessEndedError(f"{name}: its process ended before it answered")


def _silent(name: str, timeout: float | None) -> MachineError:
    return MachineError(f"{name}: its process has not answered for {timeout or 0:g} s; it may be stopped")


def process_id(name: str) -> int:
    """Return the id of the process that answers for a name; NotRunningError if no process does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(socket_path(name)))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        except OSError:
            raise _nobody(name) from None
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
