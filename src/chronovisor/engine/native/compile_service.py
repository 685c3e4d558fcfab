"""Native code, compiled in another process while this one goes on.

LLVM takes seconds, and a mistake in it would abort the process. So children compile
(``compile_server``): their end costs nothing but speed. For each child a thread of this process hands it one
request after the other, the most urgent first, and passes the answers on. The threads only wait; nothing
waits for them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from queue import PriorityQueue
from typing import IO

from chronovisor.engine.native import compile_server, compiler
from chronovisor.engine.statistics import HANDLERS, NativeCode

_log = logging.getLogger(__name__)

#: Called with the answer, or with None if it could not be compiled.
Taker = Callable[["bytes | None"], None]

#: Seconds after which a user at a terminal is told what takes so long.
_PATIENCE = 0.5
#: Processes that may fail before compiling is given up.
_MOST_FAILURES = 3
#: Seconds that one request may take: the largest takes half a minute on a slow machine that is busy.
_MOST_SECONDS = 300.0
#: Bytes of an answer; the largest has a few million.
_MOST_BYTES = 64 << 20


class Urgency(IntEnum):
    """How soon something is wanted. What is asked for with a smaller number is compiled first."""

    NOW = 0
    SOON = 1
    LATER = 2


#: Returns a request and its taker when the request's turn has come; None if it is wanted no more.
Prepare = Callable[[], "tuple[dict[str, object], Taker] | None"]


@dataclass(frozen=True, order=True)
class _Queued:
    urgency: Urgency
    number: int
    prepare: Prepare = field(compare=False)
    is_awaited: bool = field(compare=False)


class _Failed(Exception):
    """The compiling process ended or could not be started; the text says why."""


class _Child:
    """A compiling process."""

    def __init__(self, server: str) -> None:
        self._is_late = False
        command = [sys.executable, "-m", server, str(os.getpid())]
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
            # A session of its own: Ctrl-C is meant for the guest. It ends with this process.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            raise _Failed(f"{sys.executable}: {error.strerror}") from error

    def compile(self, asked: dict[str, object], slow: Callable[[], None]) -> bytes:
        """The answer to a request; ``slow`` is called if it takes longer than a moment."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        # It may hang before it has read the request, or anywhere in its answer.
        watch = threading.Timer(_MOST_SECONDS, self._end_late)
        watch.daemon = True
        watch.start()
        try:
            # A process that has ended may have said why.
            with suppress(BrokenPipeError):
                stdin.write(json.dumps({"fingerprint": compiler.fingerprint(), **asked}).encode() + b"\n")
                stdin.flush()
            # `select` itself takes no descriptor from 1,024 on: a process with many guests has some.
            answers = select.poll()
            answers.register(stdout, select.POLLIN)
            if not answers.poll(1000 * _PATIENCE):
                slow()
            length, digest = compile_server.HEADER.unpack(self._read(stdout, compile_server.HEADER.size))
            code = self._read(stdout, length) if length <= _MOST_BYTES else b""
        except OSError as error:
            raise _Failed(self._why()) from error
        finally:
            watch.cancel()
        if hashlib.sha256(code).digest() != digest:
            self.end()
            raise _Failed("the compiling process answered with something else")
        return code

    def end(self) -> None:
        """Kill the process if it still runs, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def _end_late(self) -> None:
        self._is_late = True
        self._process.kill()

    def _read(self, stream: IO[bytes], size: int) -> bytes:
        found = stream.read(size)
        if len(found) < size:
            raise _Failed(self._why())
        return found

    def _why(self) -> str:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
        if self._is_late:
            how = f"did not answer for {_MOST_SECONDS:g} s"
        return f"the compiling process {how}{': ' + said[-1] if said else ''}"


class CompileService:
    """Has one thing after the other compiled, the most urgent first, then in the order of the requests.

    ``server`` is the name of the module whose process compiles; ``code`` counts the time that this takes. Up
    to so many ``processes`` are started as requests wait. They have the guests' own priority: guests are slow
    until they are done.
    """

    def __init__(
        self, server: str = compile_server.__name__, code: NativeCode = HANDLERS, processes: int = 1
    ) -> None:
        self._server = server
        self._code = code
        self._processes = processes
        self._wanted: PriorityQueue[_Queued] = PriorityQueue()
        self._count = itertools.count()
        #: The compiling processes, one for each of the threads that has needed one.
        self._children: list[_Child] = []
        self._failures = 0
        self._told = False
        #: How many threads there are, and how many of them have nothing to do.
        self._threads = self._idle = 0
        self._changing = threading.Lock()

    def ask(
        self,
        asked: dict[str, object],
        take: Taker,
        urgency: Urgency = Urgency.NOW,
        is_awaited: bool = False,
    ) -> None:
        """Have something compiled; ``take`` is called from another thread.

        ``is_awaited``: the guest is slow without it, so a user is told if it takes long.
        """
        self.ask_in_turn(lambda: (asked, take), urgency, is_awaited)

    def ask_in_turn(self, prepare: Prepare, urgency: Urgency = Urgency.NOW, is_awaited: bool = False) -> None:
        """As `ask`, for a request that is made when its turn comes, on the service's thread."""
        with self._changing:
            self._wanted.put(_Queued(urgency, next(self._count), prepare, is_awaited))
            if self._wanted.qsize() > self._idle and self._threads < self._processes:
                self._threads += 1
                threading.Thread(target=self._serve, name="compile", daemon=True).start()

    def _serve(self) -> None:
        child: _Child | None = None
        while True:
            queued = self._next()
            if (prepared := queued.prepare()) is not None:
                asked, take = prepared
                slow = self._tell if queued.is_awaited else lambda: None
                child, code = self._compiled(child, asked, slow)
                self._hand_over(code, take)
            if self._told and self._wanted.empty():
                self._told = False
                _log.info("native code is ready")

    def _next(self) -> _Queued:
        with self._changing:
            self._idle += 1
        queued = self._wanted.get()
        with self._changing:
            self._idle -= 1
        return queued

    @staticmethod
    def _hand_over(code: bytes | None, take: Taker) -> None:
        """Give code to its taker. If it cannot be linked, say so and give None."""
        try:
            take(code)
        except Exception as error:
            _log.warning("compiled code cannot be used (%s): the guest runs slowly without it", error)
            take(None)

    def _compiled(
        self, child: _Child | None, asked: dict[str, object], slow: Callable[[], None]
    ) -> tuple[_Child | None, bytes | None]:
        """The process that is there afterwards, and what it answered."""
        if self._failures >= _MOST_FAILURES:
            return child, None
        try:
            begin = time.monotonic()
            if child is None:
                child = _Child(self._server)
                self._children.append(child)
            answer = child.compile(asked, slow)
            self._code.add_compiling(time.monotonic() - begin)
            return child, answer
        except Exception as failed:
            # Whatever it is: somebody waits for an answer, and the thread has others to serve.
            with self._changing:
                if child is not None:
                    child.end()
                    self._children.remove(child)
                self._failures += 1
                is_first = self._failures == 1
            if is_first:
                _log.warning("native code cannot be compiled (%s): the guest runs slowly without it", failed)
            return None, None

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.info("compiling native code, once for this machine; the guest runs slowly until it is ready")
