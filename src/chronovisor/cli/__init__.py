"""The commands.

Each is a module of its own, imported only when it is the one that was asked for: what one command needs costs
the others nothing.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from chronovisor.cli.status import ExitStatus

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("chronovisor.cli.run", "Run an ELF guest until it powers off."),
    "receive": ("chronovisor.cli.receive", "Wait for a guest that moves here, then run it."),
    "migrate": ("chronovisor.cli.migrate", "Move a running guest to where one is waited for."),
    "snapshot": ("chronovisor.cli.snapshot", "Save a guest in a file."),
    "restore": ("chronovisor.cli.restore", "Have a saved guest go on."),
    "inspect": ("chronovisor.cli.inspect", "Show what is in a snapshot."),
    "pause": ("chronovisor.cli.pause", "Stop a running guest, and keep it."),
    "resume": ("chronovisor.cli.resume", "Let a paused guest go on."),
    "history": ("chronovisor.cli.history", "Show the life of a guest's clock."),
    "ps": ("chronovisor.cli.ps", "List the guests that run on this machine, with their times."),
    "reg": ("chronovisor.cli.reg", "Show or set registers of a running guest."),
    "dtl": ("chronovisor.cli.dtl", "Show the dispatch trace log of a guest, or one out of a file."),
    "doctor": ("chronovisor.cli.doctor", "Say what this machine can do for guests, and what is missing."),
    "offset": ("chronovisor.cli.offset", "Say which timebase offset to set, and what comes of it."),
    "clockcheck": (
        "chronovisor.cli.clockcheck.command",
        "Check a Linux guest's clocks, on any hypervisor.",
    ),
    "demo": ("chronovisor.cli.demo", "See the timebase offset happen, in four acts."),
    "scan": ("chronovisor.cli.scan", "Find where machine code writes the registers of time."),
    "prove": ("chronovisor.cli.prove", "Prove the switch and the rounding of moves."),
}
"""A command's name, the module whose `command` it is, and its line in the list of commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status. A user's mistake becomes one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app = _application(next((word for word in given if not word.startswith("-")), ""))
        return int(app(given, prog_name="chronovisor", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except Exception as error:
        return _explain(error)


def _application(wanted: str) -> Any:
    import typer

    app = typer.Typer(
        help="A hypervisor for 64-bit Power guests that keep their own time.",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # Without it a single command would be the whole application and lose its name.
    app.callback()(_options)
    for name, (module, summary) in COMMANDS.items():
        command = import_module(module).command if name == wanted else _stands_for
        app.command(name, short_help=summary)(command)
    return app


def _options() -> None:
    """A hypervisor for 64-bit Power guests that keep their own time."""


def _stands_for() -> None:
    """Be a command in the list of commands, no more."""


def _explain(error: Exception) -> int:
    from chronovisor.kvm.errors import KvmError
    from chronovisor.machine.control import INTERNAL, UNDECIDED, USAGE, ControlError
    from chronovisor.machine.errors import ImageError, MachineError

    if isinstance(error, ImageError):
        return _say(str(error), ExitStatus.BAD_IMAGE)
    if isinstance(error, MachineError | KvmError):
        return _say(str(error), ExitStatus.USAGE)
    if isinstance(error, ControlError):
        kinds = {
            USAGE: ExitStatus.USAGE,
            UNDECIDED: ExitStatus.UNDECIDED,
            INTERNAL: ExitStatus.INTERNAL_ERROR,
        }
        return _say(str(error), kinds.get(error.kind, ExitStatus.FAILED))
    if type(error).__name__ == "Abort":
        return ExitStatus.INTERRUPTED
    # What typer says of a command line. Its base classes come from the one or the other package, by its
    # version.
    message: Callable[[], str] | None = getattr(error, "format_message", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message() if message is not None else "", file=sys.stderr)
        return ExitStatus.USAGE
    if message is not None:
        return _say(message(), ExitStatus.USAGE)
    traceback.print_exception(error)
    return _say(f"internal error: {type(error).__name__}: {error}", ExitStatus.INTERNAL_ERROR)


def _say(message: str, status: ExitStatus) -> ExitStatus:
    if message:
        print("chronovisor: " + " ".join(message.split()), file=sys.stderr)
    return status
