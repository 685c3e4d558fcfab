"""Terminals on which tests run commands as people do."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
from collections.abc import Sequence
from pathlib import Path

WITHIN = 60.0
"""Seconds for each thing that a command is to say."""


class Terminal:
    """A command on a terminal of its own, so many columns wide."""

    def __init__(self, words: Sequence[str], directory: Path, columns: int = 80) -> None:
        self.command, self.text = " ".join(words), ""
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
            os.chdir(directory)
            os.execvp(words[0], words)

    def until(self, words: str) -> None:
        while words not in self.text:
            assert self.read(), f"{self.command} ended without {words!r}:\n{self.text}"

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def ends(self) -> int:
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._end)
        if self.pid:
            os.waitpid(self.pid, 0)

    def kill(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def read(self) -> bool:
        """Wait for more output; False if the command has ended."""
        assert select.select([self._end], [], [], WITHIN)[0], f"{self.command} is silent:\n{self.text}"
        try:
            data = os.read(self._end, 4096)
        except OSError:
            # The last process of a terminal has ended.
            return False
        self.text += data.decode(errors="replace")
        return bool(data)
