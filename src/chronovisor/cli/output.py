"""What a command prints: any terminal can show it, and text from a file cannot control the terminal."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final

from chronovisor.machine.errors import OutputLostError

_IN_ASCII: Final = str.maketrans({"±": "+-", "×": "x", "–": "-", "…": "...", "µ": "u", "→": "->"})
_HANDLER: Final = "chronovisor"


def printable(text: str) -> str:
    """Return the text with what is not printable (a terminal's escape sequences, say) written as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def show(line: str) -> None:
    """Print a line that may have text from a file in it: a symbol's name, say."""
    print(printable(line))


def say(line: str) -> None:
    """Tell the user something beside the guest's console."""
    print(f"chronovisor: {printable(line)}", file=sys.stderr, flush=True)


def terminal_width() -> int | None:
    """Return how many columns the terminal has that is the standard output; None if it is not a terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def set_up() -> None:
    """Have both outputs write what their encoding lacks (±, say, in ASCII) as something similar.

    If the standard output cannot be written from then on, OutputLostError is raised.
    """
    codecs.register_error(_HANDLER, _similar)
    # A test may have put something else there.
    plain = sys.__stdout__
    if isinstance(plain, io.TextIOWrapper) and sys.stdout is plain:
        sys.stdout = _Output(plain.buffer, plain.encoding, _HANDLER, line_buffering=plain.line_buffering)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_HANDLER)


class _Output(io.TextIOWrapper):
    """The standard output."""

    def write(self, text: str) -> int:
        with self._telling():
            return super().write(text)

    def flush(self) -> None:
        with self._telling():
            super().flush()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is left in the buffers would be written at the exit, and fail once more.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            # A reader that goes away (`head`, say) has what it wanted.
            reason = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
            raise OutputLostError(reason and f"the output cannot be written: {reason}") from None


def _similar(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_IN_ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end
