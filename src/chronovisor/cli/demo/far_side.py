"""A side in a process of its own, asked over a pipe: a line of JSON each way.

It ends when its pipe is closed, so it outlives the process that started it under no circumstances.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from chronovisor.cli.demo.side import Side

PATIENCE = 120.0
"""Seconds for an answer: the first start on a machine has everything to compile."""


_START = f"from {__name__} import serve; serve()"


class FarSideError(Exception):
    """The side in the other process failed, or is no more."""


class FarSide:
    """A `Side` in another process. A context: the process ends with it, whatever happened."""

    def __init__(self, engine: str = "auto") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Ctrl-C is for the process that started it, which then closes the pipe.
            process_group=0,
        )
        self._read = b""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def do(self, what: str, **arguments: Any) -> Any:
        """Have the side do it and return its answer; FarSideError if it fails there."""
        self.ask(what, **arguments)
        return self.answer()

    def ask(self, what: str, **arguments: Any) -> None:
        """Have the side begin to do it; `answer` waits for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        except OSError as error:
            raise FarSideError(f"the second process has ended ({error.strerror})") from None

    def answer(self) -> Any:
        """Return the answer to what was asked last."""
        answer = json.loads(self._line(time.monotonic() + PATIENCE))
        if "error" in answer:
            raise FarSideError(f"the second process: {answer['error']}")
        return answer["done"]

    def __enter__(self) -> FarSide:
        return self

    def __exit__(self, *_: object) -> None:
        # It has nothing that is worth waiting for.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise FarSideError(f"the second process said nothing for {PATIENCE:g} s")
            more = os.read(self._process.stdout.fileno(), 1 << 16)
            if not more:
                raise FarSideError("the second process has ended before its time")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line


def serve() -> None:
    """Be the side: do what the lines of standard input ask, until it is closed."""
    side = Side(sys.argv[1])
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            answer = {"done": side.do(what, **arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    # At once, with a guest that may be still running on threads of its own.
    os._exit(0)
