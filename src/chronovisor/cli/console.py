"""`chronovisor console`: attach the terminal to a running guest's console."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Annotated, Final

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.cli.output import say
from chronovisor.cli.terminal import (
    ESCAPE_DEFAULT,
    STDIN,
    Escape,
    Terminal,
    end_orderly,
    signals,
    write_stdout,
)
from chronovisor.machine.control import PATIENCE, converse
from chronovisor.machine.run_directory import names

_PIECE: Final = 1 << 16


def command(
    name: GuestName,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show what the guest prints, and type nothing.")
    ] = False,
    escape: Annotated[
        str, typer.Option(help="The keys that detach; ^ is Ctrl.", metavar="KEYS")
    ] = ESCAPE_DEFAULT,
    force: Annotated[
        bool, typer.Option("--force", help="Take the keys over from the client that has them.")
    ] = False,
) -> None:
    """Attach this terminal to a guest's console, from the line on that was printed last. Every key is the
    guest's; Ctrl-] twice detaches, and the guest goes on.

    One at a time types; others can look on with --read-only. A standard input that is no terminal is typed,
    too; after its end this shows what the guest prints, until the guest ends.
    """
    sequence = Escape.parse(escape)
    with converse(name, "console", PATIENCE, types=not read_only, force=force) as (_, connection):
        if os.isatty(STDIN):
            print(f"chronovisor: this is {name}; {sequence.words} detaches", file=sys.stderr, flush=True)
        with Terminal() as terminal, signals({signal.SIGTERM: end_orderly}):
            terminal.give_keys_away(True)
            detached = _Attached(connection, read_only, sequence).pass_on()
    if os.isatty(STDIN) and not detached:
        # A connection has no words for why it ends.
        say(f"{name}: another one has taken the console over" if name in names() else f"{name} is over")


class _Attached:
    """A terminal at one end, a connection at the other."""

    def __init__(self, connection: socket.socket, read_only: bool, escape: Escape) -> None:
        self._connection = connection
        self._read_only = read_only
        self._escape = escape
        self._keys = b""
        """What was typed and is not sent yet."""
        self._typing = True

    def pass_on(self) -> bool:
        """Pass on both directions until the guest's side ends the connection; True if the user detaches."""
        self._connection.setblocking(False)
        with contextlib.suppress(ConnectionError):
            while True:
                typing: list[socket.socket | int] = [STDIN] if self._typing and not self._keys else []
                inputs = [self._connection, *typing]
                ready, sendable, _ = select.select(inputs, [self._connection] if self._keys else [], [])
                if self._connection in ready:
                    if not (output := self._connection.recv(_PIECE)):
                        return False
                    write_stdout(output)
                if sendable:
                    self._keys = self._keys[self._connection.send(self._keys) :]
                if STDIN in ready and self._take_keys():
                    return True
        return False

    def _take_keys(self) -> bool:
        """Take what was typed; True if the user detaches by it."""
        keys = os.read(STDIN, _PIECE)
        if not keys:
            self._typing = False
            if not self._read_only:
                self._connection.shutdown(socket.SHUT_WR)
        elif os.isatty(STDIN) and self._escape.is_in(keys):
            return True
        elif not self._read_only:
            self._keys = keys
        return False
