"""Sets of handlers, compiled in another process while this one goes on.

LLVM takes seconds, and a mistake in it would abort the process. So a child compiles
(``compile_server``): its end costs nothing but speed. A thread of this process hands it one set after the
other, keeps what comes back on disk, and passes it on. The thread only waits; nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, TypeAlias

from chronovisor.engine.native import code_cache, compile_server, compiler
from chronovisor.engine.native.regions.compile import WantedRegion
from chronovisor.engine.native.sets import HandlerSet

_log = logging.getLogger(__name__)

#: Called with a set's object file, or with None if it could not be compiled.
Taker = Callable[["bytes | None"], None]

#: What can be asked for.
Wanted: TypeAlias = HandlerSet | WantedRegion

#: Seconds after which a user at a terminal is told what takes so long.
_PATIENCE = 0.5
_NICE = ("nice", "-n", "10")
#: Processes that may fail before compiling is given up.
_MOST_FAILURES = 3


class _Failed(Exception):
    """The compiling process ended or could not be started; the text says why."""


class _Child:
    """A compiling process."""

    def __init__(self, nice: bool) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command = [*(_NICE if nice else ()), sys.executable, "-m", compile_server.__name__]
        try:
            # A session of its own: Ctrl-C is meant for the guest. It ends with its input.
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

    def compile(self, wanted: Wanted, slow: Callable[[], None]) -> bytes:
        """A set's object file; ``slow`` is called if it takes longer than a moment."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(compile_server.request(wanted))
            stdin.flush()
            if not select.select([stdout], [], [], _PATIENCE)[0]:
                slow()
            (length,) = compile_server.LENGTH.unpack(self._read(stdout, compile_server.LENGTH.size))
            return self._read(stdout, length)
        except OSError as error:
            raise _Failed(self._why()) from error

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
        return f"the compiling process {how}{': ' + said[-1] if said else ''}"


class CompileService:
    """Compiles sets and regions one after the other, in the order in which they are asked for.

    If ``nice``, guests come first.
    """

    def __init__(self, nice: bool = False) -> None:
        self._nice = nice
        self._wanted: SimpleQueue[tuple[Wanted, Taker]] = SimpleQueue()
        self._child: _Child | None = None
        self._failures = 0
        self._told = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ask(self, wanted: Wanted, take: Taker) -> None:
        """Have a set compiled; ``take`` is called from another thread."""
        self._wanted.put((wanted, take))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="compile", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            wanted, take = self._wanted.get()
            take(self._compiled(wanted))
            if self._told and self._wanted.empty():
                self._told = False
                _log.info("native code is ready")

    def _compiled(self, wanted: Wanted) -> bytes | None:
        if self._failures >= _MOST_FAILURES:
            return None
        try:
            if self._child is None:
                self._child = _Child(self._nice)
            code = self._child.compile(wanted, self._tell)
        except _Failed as failed:
            self._child = None
            self._failures += 1
            if self._failures == 1:
                _log.warning("native code cannot be compiled (%s): the guest runs slowly without it", failed)
            return None
        if isinstance(wanted, WantedRegion):
            return code
        with compiler.FINISHING:
            code_cache.keep(wanted.file_name, compiler.fingerprint(), code)
        return code

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.info("compiling native code, once for this machine; the guest runs slowly until it is ready")
