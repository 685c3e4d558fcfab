"""`--console`: where a guest's console is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from chronovisor.cli.background import Foreground
from chronovisor.cli.own_socket import OwnSocket
from chronovisor.cli.protection import Protection
from chronovisor.cli.terminal import Escape, ending_orderly, typing_into
from chronovisor.machine.bounded_log import BoundedLog
from chronovisor.machine.console import Console
from chronovisor.machine.console_sessions import ConsoleSessions
from chronovisor.machine.errors import MachineError

ConsoleAt: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Where the console is: stdio; file:FILE (the newest of what is printed, at most --log-size); "
        "unix:PATH, tcp:HOST:PORT or tls:HOST:PORT (one client at a time); none. `chronovisor console` "
        "attaches in any case but at a terminal.",
        metavar="PLACE",
        show_default="stdio, or a log with --detach",
    ),
]
EscapeKeys: TypeAlias = Annotated[
    str, typer.Option(help="The keys at a terminal that end the run; ^ is Ctrl.", metavar="KEYS")
]
_FILE: Final = "file:"


@dataclass(frozen=True, slots=True)
class ConsolePlace:
    """Return the console that an option names. `text` is empty if the option was not given."""

    text: str
    escape: Escape
    socket: OwnSocket | None
    """Where clients connect, if they can."""

    @classmethod
    def parse(cls, text: str, escape: str, detach: bool, protection: Protection) -> ConsolePlace:
        """Return the place that the options say; MachineError if they make no sense."""
        if text == "stdio" and detach:
            raise MachineError("--console stdio: with --detach there is no terminal")
        at_socket = text.startswith(("unix:", "tcp:", "tls:"))
        if text not in ("", "stdio", "none") and not at_socket and not text.startswith(_FILE):
            raise MachineError(
                f"--console {text!r}: write stdio, none, file:FILE, unix:PATH, tcp:HOST:PORT or tls:HOST:PORT"
            )
        socket = OwnSocket.parse(text, "--console", protection) if at_socket else None
        return cls(text, Escape.parse(escape), socket)

    def console(self, ground: Foreground, name: str, log_bytes: int) -> Console:
        """Return the console of the guest, whose name is this process's by now."""
        usual = ground.begin_output(name, log_bytes)
        if self.text in ("", "stdio"):
            return Console(usual)
        if self.text.startswith(_FILE):
            return Console(BoundedLog(Path(self.text.removeprefix(_FILE)), log_bytes).write)
        return Console()

    def typing(self, console: Console) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the standard input is typed, if it is to be."""
        return typing_into(console, self.escape) if self.text in ("", "stdio") else ending_orderly()


@contextlib.contextmanager
def console_socket(sessions: ConsoleSessions, at: OwnSocket) -> Iterator[None]:
    """Let clients attach to a console at a socket, one at a time, inside the context.

    MachineError if it cannot be listened at.
    """
    door = at.open()

    def accept() -> None:
        while True:
            try:
                connection = door.accept()
            except OSError:
                return
            with connection, contextlib.suppress(MachineError):
                sessions.attach(types=True)(connection)

    accepting = threading.Thread(target=accept, name="console", daemon=True)
    accepting.start()
    try:
        yield
    finally:
        door.close()
        accepting.join(1.0)
        door.finish(1.0)
