"""The terminal as a guest's console: bytes out as they come, keys in as they are typed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Any

from chronovisor.machine.console import Console

STDIN, STDOUT = 0, 1
_SIGNALLED = 128


def write_stdout(data: bytes) -> None:
    """Write to the standard output at once; what nobody reads is dropped (SIGPIPE ends the command)."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(STDOUT, data) :]


@contextlib.contextmanager
def typing_into(console: Console) -> Iterator[None]:
    """Have what comes on the standard input typed into the console meanwhile.

    A terminal hands over each key and shows none (the guest does); Ctrl-C stays what it is. SIGPIPE and
    SIGTERM become an orderly exit, so that the terminal is itself again.
    """
    stop_reader, tell_reader = os.pipe()
    before = _leave_line_mode()
    handlers = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGPIPE, _exit_if_unread), (signal.SIGTERM, _exit))
    }
    reader = threading.Thread(target=_read, args=(console, stop_reader), name="stdin", daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.close(tell_reader)
        reader.join(1.0)
        os.close(stop_reader)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if before is not None:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(_SIGNALLED + number)


def _exit_if_unread(number: int, frame: FrameType | None) -> None:
    """Exit where nobody reads the standard output any more: a connection that broke is no reason to."""
    output = select.poll()
    output.register(STDOUT, 0)
    if output.poll(0):
        _exit(number, frame)


def _leave_line_mode() -> list[Any] | None:
    try:
        in_front = os.isatty(STDIN) and os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        # A terminal, and not this process's own: the first process of a machine or container has such a one.
        in_front = False
    if not in_front:
        return None
    before = termios.tcgetattr(STDIN)
    tty.setcbreak(STDIN, termios.TCSADRAIN)
    return before


def _read(console: Console, stop: int) -> None:
    # A background job that reads its terminal would be stopped for it.
    if os.isatty(STDIN) and os.tcgetpgrp(STDIN) != os.getpgrp():
        return
    with contextlib.suppress(OSError, ValueError):
        while True:
            ready, _, _ = select.select([STDIN, stop], [], [])
            if stop in ready:
                return
            data = os.read(STDIN, 4096)
            if not data:
                return
            console.type(data)
