"""The terminal as a guest's console: output and keys are passed on at once."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, Final

from chronovisor.cli.status import ExitStatus
from chronovisor.machine.console import Console
from chronovisor.machine.errors import MachineError

STDIN, STDOUT = 0, 1
_INPUT, _LOCAL, _CONTROL_KEYS = 0, 3, 6
"""Places in the list of settings that termios has."""
_SIGNALLED = 128
_KEY: Final = re.compile(r"\^?[!-~]")
_BETWEEN_LOOKS: Final = 0.2
"""Seconds between two looks whether the guest has read its input, or this process is in the foreground."""


_BEFORE_KILL: Final = 0.05
"""Seconds in which an answer is sent before the process ends."""
_terminal: Terminal | None = None
"""The terminal whose settings have to be restored."""
_quit = False
"""Whether the user has typed the escape sequence."""
ESCAPE_DEFAULT: Final = "^]^]"
"""Ctrl-] twice."""
_LONGEST_ESCAPE: Final = 8
"""Keys."""


def write_stdout(data: bytes) -> None:
    """Write to the standard output at once. If nobody reads it, SIGPIPE ends the command."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(STDOUT, data) :]


@contextlib.contextmanager
def typing_into(console: Console, escape: Escape | None = None) -> Iterator[None]:
    """Type the standard input into the console inside the context.

    A terminal passes on each key without echo (the guest echoes). Ctrl-C and Ctrl-Z end and stop the process
    until the guest reads its console; from then on they are the guest's, too. The `escape` sequence (Ctrl-]
    twice) ends the process at any time. Signals are as in `ending_orderly`, and the terminal's settings are
    restored then. They are restored too while the process is stopped (SIGTSTP).
    """
    escape = escape or Escape.parse(ESCAPE_DEFAULT)
    stop_reader, tell_reader = os.pipe()
    with Terminal() as terminal, ending_orderly():
        if os.isatty(STDIN):
            print(f"chronovisor: {escape.words} ends the run", file=sys.stderr, flush=True)
            console.occupied = "the console is on the terminal of its run"
        console.on_reader(terminal.give_keys_away)
        reader = threading.Thread(
            target=_read, args=(console, stop_reader, escape), name="stdin", daemon=True
        )
        reader.start()
        try:
            yield
        finally:
            console.on_reader(lambda reads: None)
            os.close(tell_reader)
            reader.join(1.0)
            os.close(stop_reader)


@contextlib.contextmanager
def ending_orderly() -> Iterator[None]:
    """Have SIGTERM, and SIGPIPE for the standard output, end this process with all that `finally` does."""
    with signals({signal.SIGPIPE: _exit_if_unread, signal.SIGTERM: end_orderly}):
        yield


def end_this_process(request: dict[str, Any]) -> dict[str, Any]:
    """Answer `chronovisor stop` for a process that has no guest: end it as SIGTERM does."""
    os.kill(os.getpid(), signal.SIGTERM)
    return {}


def kill_this_process(request: dict[str, Any]) -> dict[str, Any]:
    """Answer `chronovisor kill`: end this process without any further work, once the answer is sent."""
    threading.Timer(_BEFORE_KILL, _die).start()
    return {}


def _die() -> None:
    if _terminal is not None:
        _terminal.restore()
    os._exit(ExitStatus.KILLED)


class Terminal:
    """Passes on each key without echo inside the context, if the standard input is our terminal."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._handlers = contextlib.ExitStack()
        self._changing = threading.RLock()
        self._all_keys = False

    def __enter__(self) -> Terminal:
        global _terminal
        _terminal = self
        if os.isatty(STDIN) and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            self._handlers.enter_context(
                signals({signal.SIGTSTP: self._stop, signal.SIGCONT: self._continue})
            )
        self._leave_line_mode()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        global _terminal
        self._handlers.close()
        self.restore()
        _terminal = None

    def give_keys_away(self, all_keys: bool) -> None:
        """Pass on all keys or, if not `all_keys`, keep those that mean a signal. From any thread."""
        with self._changing:
            self._all_keys = all_keys
            if self._before is not None:
                self._set(self._before)

    def _leave_line_mode(self) -> None:
        with self._changing:
            if is_in_foreground():
                self._before = termios.tcgetattr(STDIN)
                self._set(self._before)

    def _set(self, before: list[Any]) -> None:
        settings = list(before)
        settings[_INPUT] &= ~(termios.IXON | termios.ICRNL | termios.ISTRIP if self._all_keys else 0)
        settings[_LOCAL] &= ~(termios.ECHO | termios.ICANON)
        settings[_LOCAL] &= ~(termios.ISIG | termios.IEXTEN if self._all_keys else 0)
        settings[_CONTROL_KEYS] = list(before[_CONTROL_KEYS])
        settings[_CONTROL_KEYS][termios.VMIN], settings[_CONTROL_KEYS][termios.VTIME] = 1, 0
        # What this process prints needs the terminal's line ends: the settings of the output stay.
        termios.tcsetattr(STDIN, termios.TCSANOW, settings)

    def restore(self) -> None:
        """Give the terminal the settings that it had before."""
        with self._changing:
            before, self._before = self._before, None
            if before is not None:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(STDIN, termios.TCSADRAIN, before)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        """Restore the terminal and stop the process, as SIGTSTP does by default."""
        self.restore()
        with signals({number: signal.SIG_DFL}):
            # The process stops in this call. `_continue` runs when it is continued.
            signal.raise_signal(number)

    def _continue(self, _number: int, _frame: FrameType | None) -> None:
        # After `bg`, the terminal belongs to the shell. `fg` sends SIGCONT again.
        if self._before is None:
            self._leave_line_mode()


@contextlib.contextmanager
def signals(handlers: dict[int, Any]) -> Iterator[None]:
    """Handle signals inside the context."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_orderly(_number: int, _frame: FrameType | None) -> None:
    """End this process for a signal, with all that `finally` and contexts do."""
    sys.exit(ExitStatus.QUIT if _quit else ExitStatus.ENDED)


def _exit_if_unread(number: int, _frame: FrameType | None) -> None:
    """Exit if nobody reads the standard output any more. SIGPIPE also reports a broken connection."""
    output = select.poll()
    output.register(STDOUT, 0)
    if output.poll(0):
        sys.exit(_SIGNALLED + number)


def is_in_foreground() -> bool:
    """Whether the standard input is a terminal that belongs to this process's group."""
    try:
        return os.isatty(STDIN) and os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        # The first process of a machine or container has a terminal that does not control it.
        return False


class Escape:
    """Keys in a row that end a session at a terminal."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._sequence = bytes(ord(key[-1].upper()) ^ 0x40 if len(key) > 1 else ord(key) for key in keys)
        self._last = b""
        names = [f"Ctrl-{key[1].lower()}" if len(key) > 1 else key for key in keys]
        twice = len(names) == 2 and len(set(names)) == 1
        self.words = f"{names[0]} twice" if twice else " ".join(names)
        """The keys, for people."""

    @classmethod
    def parse(cls, text: str) -> Escape:
        """Return the sequence that a text such as `^]^]` or `^ax` says; MachineError for none."""
        keys = _KEY.findall(text)
        if not 0 < len(keys) <= _LONGEST_ESCAPE or "".join(keys) != text or "^" in keys:
            raise MachineError(f"escape {text!r}: write up to {_LONGEST_ESCAPE} keys, as in ^]^] or ^ax")
        return cls(keys)

    def is_in(self, keys: bytes) -> bool:
        """Whether these keys complete it. Its keys but the last go to the guest like any."""
        seen = self._last + keys
        self._last = seen[max(0, len(seen) - len(self._sequence) + 1) :]
        return self._sequence in seen


def _end_by_user() -> None:
    """End the process as SIGTERM does, with the status of an end by the user."""
    global _quit
    _quit = True
    os.kill(os.getpid(), signal.SIGTERM)


def _read(console: Console, stop: int, escape: Escape) -> None:
    with contextlib.suppress(OSError, ValueError):
        while True:
            # A process in the background would be stopped if it read its terminal.
            allowed = is_in_foreground() if os.isatty(STDIN) else True
            room = console.room(_BETWEEN_LOOKS) if allowed else 0
            # The console's wait is over after a moment, and `stop` is looked at then.
            pause = None if room else 0.0 if allowed else _BETWEEN_LOOKS
            ready, _, _ = select.select([STDIN, stop] if room else [stop], [], [], pause)
            if stop in ready:
                return
            if STDIN in ready and (is_in_foreground() or not os.isatty(STDIN)):
                data = os.read(STDIN, min(room, 4096))
                if not data:
                    return
                if os.isatty(STDIN) and escape.is_in(data):
                    _end_by_user()
                    return
                console.type(data)
