"""Where a guest's console is read: files, terminals, sockets, and the output of a command."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Final, NamedTuple

from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import parse_address
from chronovisor.report.clock_check.lines import LONGEST

_PIECE: Final = 1 << 16
_CONNECT_SECONDS: Final = 10.0
_PATIENCE: Final = 5.0
"""Seconds that a command has to end by itself, and then after SIGTERM."""
_LONGEST_WAIT: Final = 0.5
"""Seconds after which a signal is noticed at the latest."""
_SIGNALLED: Final = 128
_STAMP: Final = re.compile(rb"@([0-9]{1,19}) |([0-9]{1,10})\.([0-9]{1,9}) ")
MOST_LOGGED: Final = 1 << 30
"""Bytes after which no more is written to a log."""


class ConsoleLine(NamedTuple):
    """A line of the console, without its end."""

    text: bytes
    at: int | None
    """Nanoseconds of this machine's monotonic clock when the line's end arrived; None: unknown."""
    cut: bool
    """Whether the line was longer than `text`."""


class Splitter:
    """Makes lines of pieces. A line is cut at `LONGEST` bytes, so no flood takes memory."""

    def __init__(self) -> None:
        self._begun = b""
        self._cut = False

    def split(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """Return the lines that end in this piece, and whether each was cut."""
        *whole, rest = piece.split(b"\n")
        for part in whole:
            self._append(part)
            yield self._begun.strip(b"\r"), self._cut
            self._begun, self._cut = b"", False
        self._append(rest)

    def end(self) -> Iterator[tuple[bytes, bool]]:
        """Return the line that has no end, if there is one."""
        if self._begun:
            yield self._begun.strip(b"\r"), self._cut

    def _append(self, part: bytes) -> None:
        room = LONGEST - len(self._begun)
        self._cut = self._cut or len(part) > room
        self._begun += part[:room]


@contextlib.contextmanager
def opened(words: Sequence[str]) -> Iterator[Source]:
    """Open the console that a command line names: one word for a place, several for a command to run.

    Raises MachineError, in one line, if it cannot be opened.
    """
    if len(words) > 1 or _is_program(words[0]):
        with _running(words) as source:
            yield source
        return
    word = words[0]
    try:
        if word == "-":
            yield Source(0, "the standard input", is_log=_is_file(0))
            return
        if word.startswith(("tcp:", "unix:")) or _is_socket(word):
            with _connected(word if ":" in word else f"unix:{word}") as connection:
                yield Source(connection.fileno(), word)
            return
        descriptor = os.open(word, _mode(word) | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{word}: {error.strerror or error}") from None
    try:
        with _raw(descriptor):
            yield Source(descriptor, word, is_log=_is_file(descriptor))
    finally:
        os.close(descriptor)


class Source:
    """An open console."""

    def __init__(
        self,
        descriptor: int,
        name: str,
        is_log: bool = False,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self.name = name
        self.is_log = is_log
        """Whether this is a file, whose lines tell themselves when they arrived."""
        self.process = process
        """The command whose output this is."""
        self.ended = False
        """Whether the other side has closed."""

    def lines(self, time_left: Callable[[], float | None]) -> Iterator[ConsoleLine]:
        """Return lines as they come, until the end or until `time_left` is no longer above 0 seconds."""
        splitter = Splitter()
        while True:
            left = time_left()
            if left is not None and left <= 0:
                return
            # Python would not see a signal that comes just before an endless wait begins.
            wait = _LONGEST_WAIT if left is None else min(left, _LONGEST_WAIT)
            if not self.is_log and not select.select([self._descriptor], [], [], wait)[0]:
                continue
            try:
                piece = os.read(self._descriptor, _PIECE)
            except OSError:
                # A pseudo-terminal whose other side has closed, a connection that broke.
                piece = b""
            now = None if self.is_log else time.monotonic_ns()
            for text, cut in splitter.split(piece) if piece else splitter.end():
                yield _stamped(text, cut) if self.is_log else ConsoleLine(text, now, cut)
            if not piece:
                self.ended = True
                return


class Log:
    """Keeps the console's lines in a file with the times of their arrival, for a later check."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MOST_LOGGED
        try:
            self._file: BinaryIO = path.open("wb", buffering=0)
        except OSError as error:
            raise MachineError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: ConsoleLine) -> None:
        """Write a line at once. MachineError if it cannot be written."""
        text = b"%s%s\n" % (b"" if line.at is None else b"@%d " % line.at, line.text)
        self._left -= len(text)
        if self._left < 0:
            return
        try:
            self._file.write(text)
        except OSError as error:
            raise MachineError(f"{self._path}: {error.strerror}") from None


def _stamped(text: bytes, cut: bool) -> ConsoleLine:
    """Take the time of arrival off a line of a log: ours, or seconds as `ts -m %.s` writes them."""
    found = _STAMP.match(text)
    if found is None:
        return ConsoleLine(text, None, cut)
    nanoseconds, seconds, fraction = found.groups()
    at = int(nanoseconds) if nanoseconds else int(seconds) * 10**9 + int(fraction.ljust(9, b"0"))
    return ConsoleLine(text[found.end() :], at, cut)


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _is_socket(word: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(word).st_mode)
    except OSError:
        return False


def _is_program(word: str) -> bool:
    return os.path.isfile(word) and os.access(word, os.X_OK)


def _mode(word: str) -> int:
    # A terminal has to be written to, to take it out of line mode.
    return os.O_RDWR if stat.S_ISCHR(os.stat(word).st_mode) else os.O_RDONLY


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Have a terminal hand over each byte, and echo none, meanwhile."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextlib.contextmanager
def _connected(word: str) -> Iterator[socket.socket]:
    # Nothing secret is sent, and what comes is not trusted: any machine may be read.
    place = parse_address(word, insecure=True)
    failure: OSError | None = None
    for family, address in place.resolve():
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
            continue
        with connection:
            connection.settimeout(None)
            yield connection
        return
    reason = (failure.strerror or failure) if failure else "it has no address"
    raise MachineError(f"{word}: nobody can be reached there ({reason})")


@contextlib.contextmanager
def _running(words: Sequence[str]) -> Iterator[Source]:
    """Run a command; end it, and what it started, if it has not ended by itself."""
    started: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []

    def leave(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if started:
            sys.exit(_SIGNALLED + number)

    # Ended by SIGTERM, this process still ends the command. An exit while the command starts would lose it.
    before = signal.signal(signal.SIGTERM, leave)
    try:
        started.append(
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        )
        if asked:
            sys.exit(_SIGNALLED + asked[0])
        (process,) = started
        assert process.stdout is not None
        with process.stdout:
            source = Source(process.stdout.fileno(), words[0], process=process)
            yield source
            if source.ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE)
    except OSError as error:
        if started:
            raise
        raise MachineError(f"{words[0]} cannot be run: {error.strerror}") from None
    finally:
        for process in started:
            _end(process)
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
