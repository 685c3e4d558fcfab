"""The commands.

Each command is a module of its own, which is imported only if the command is asked for. So what one command
needs does not slow the others down. This module imports next to nothing before `main` is called, which is
where Ctrl-C and garbage are provided for.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from chronovisor.cli.status import OF_A_GUEST, ExitStatus, statuses_in_help


class Command(NamedTuple):
    """A command of `chronovisor`."""

    module: str
    """The module whose `command` it is."""
    summary: str
    """Its line in the list of commands."""
    statuses: tuple[ExitStatus, ...] = ()
    """Its exit statuses beside those that every command has."""


COMMANDS: dict[str, Command] = {
    "run": Command(
        "chronovisor.cli.run",
        "Run an ELF guest until it powers off.",
        (ExitStatus.BAD_IMAGE, *OF_A_GUEST),
    ),
    "guests": Command("chronovisor.cli.guests", "List the guests that come with Chronovisor."),
    "console": Command("chronovisor.cli.console", "Attach to a running guest's console."),
    "wait": Command("chronovisor.cli.wait", "Wait for a guest's end.", OF_A_GUEST),
    "stop": Command("chronovisor.cli.stop", "End a running guest."),
    "kill": Command("chronovisor.cli.kill", "End a guest's process at once."),
    "receive": Command(
        "chronovisor.cli.receive", "Wait for a guest that moves here, then run it.", OF_A_GUEST
    ),
    "migrate": Command(
        "chronovisor.cli.migrate", "Move a running guest to another process.", (ExitStatus.UNDECIDED,)
    ),
    "snapshot": Command("chronovisor.cli.snapshot", "Save a guest in a file."),
    "dump": Command("chronovisor.cli.dump", "Write a guest's memory and registers to an ELF core file."),
    "restore": Command(
        "chronovisor.cli.restore", "Run a guest from a snapshot.", (ExitStatus.BAD_IMAGE, *OF_A_GUEST)
    ),
    "inspect": Command("chronovisor.cli.inspect", "Show what is in a snapshot.", (ExitStatus.BAD_IMAGE,)),
    "pause": Command("chronovisor.cli.pause", "Stop a running guest, and keep it."),
    "resume": Command("chronovisor.cli.resume", "Let a paused guest continue."),
    "history": Command("chronovisor.cli.history", "Show the life of a guest's clock."),
    "ps": Command("chronovisor.cli.ps", "List the guests that run on this machine, with their times."),
    "top": Command("chronovisor.cli.top", "Show what the guests do, in a table that renews itself."),
    "reg": Command("chronovisor.cli.reg", "Show or set registers of a running guest."),
    "gdb": Command("chronovisor.cli.gdb", "Let gdb at a running guest."),
    "dtl": Command("chronovisor.cli.dtl", "Show a dispatch trace log, from a guest or a file."),
    "report": Command("chronovisor.cli.report", "Show what a trace says, in numbers and as a picture."),
    "doctor": Command("chronovisor.cli.doctor", "Show what this machine can do, and what is missing."),
    "cache": Command("chronovisor.cli.cache", "Show or clear the compiled code that is kept on disk."),
    "offset": Command("chronovisor.cli.offset", "Compute the timebase offset to set."),
    "clockcheck": Command(
        "chronovisor.cli.clockcheck.command",
        "Check a Linux guest's clocks, on any hypervisor.",
        (ExitStatus.CLOCK_FAULT,),
    ),
    "demo": Command("chronovisor.cli.demo", "See the timebase offset happen, in five acts."),
    "campaign": Command(
        "chronovisor.cli.campaign", "Run a question that outgrows one machine, on a cluster or here."
    ),
    "isa": Command("chronovisor.cli.isa", "List the instructions and registers that are known."),
    "scan": Command(
        "chronovisor.cli.scan", "Find where machine code writes time registers.", (ExitStatus.BAD_IMAGE,)
    ),
    "prove": Command(
        "chronovisor.cli.prove", "Prove the switch and the rounding of moves.", (ExitStatus.BAD_IMAGE,)
    ),
}
"""The commands by name."""
_OBJECTS = 150_000
"""How many more objects there are before garbage is looked for: more than a command loads."""
HELP = """A hypervisor for 64-bit Power guests that keep their own time.

`chronovisor COMMAND --help` describes a command. CHRONOVISOR_RUN_DIR is the directory in which running guests
are found by their names (default: $XDG_RUNTIME_DIR/chronovisor). CHRONOVISOR_CACHE is the directory in which
compiled code is kept (default: ~/.cache/chronovisor).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. A user's mistake becomes one line on stderr."""
    if arguments is None:
        begin_process()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return execute(given)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except Exception as error:
        message, status = explain(error)
        return _say(message, status, given)


def begin_process() -> None:
    """Prepare the process for its only command, before it imports anything."""
    # Modules make many objects that stay: looking for garbage among them after each 700 new ones, and once
    # more at the end, takes longer than loading them.
    gc.set_threshold(_OBJECTS)
    atexit.register(gc.freeze)


def execute(given: Sequence[str]) -> int:
    """Run a command line and return its status; errors, of which `explain` knows more, are raised."""
    from chronovisor.cli.notices import engine_notices
    from chronovisor.cli.output import set_up

    set_up()
    words = given or _words_to_complete()
    app = _application(next((word for word in words if not word.startswith("-")), ""))
    with engine_notices():
        status = int(app(given, prog_name="chronovisor", standalone_mode=False) or 0)
    if sys.stdout is not None:
        sys.stdout.flush()
    return status


def _words_to_complete() -> list[str]:
    """Return the words that a shell wants completed; none if this is a command like others."""
    if "_CHRONOVISOR_COMPLETE" not in os.environ:
        return []
    # bash's come in the one, zsh's and fish's in the other.
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def _application(wanted: str) -> Any:
    import typer

    from chronovisor.cli.needed_options import CheckedCommand

    app = typer.Typer(
        help=HELP,
        epilog=statuses_in_help(()),
        add_completion=True,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show_version(wished: bool) -> None:
        if wished:
            from chronovisor import __version__

            print(f"chronovisor {__version__}")
            raise typer.Exit

    def options(
        version: bool = typer.Option(
            False, "--version", help="Show the version and exit.", callback=show_version, is_eager=True
        ),
    ) -> None:
        pass

    # Without a callback, a single command would be the whole application and lose its name.
    app.callback(help=HELP, epilog=statuses_in_help(()))(options)
    for name, (module, summary, statuses) in COMMANDS.items():
        command = import_module(module).command if name == wanted else _stands_for
        app.command(name, cls=CheckedCommand, short_help=summary, epilog=statuses_in_help(statuses))(command)
    return app


def _stands_for() -> None:
    """Be a command in the list of commands."""


def explain(error: Exception) -> tuple[str, ExitStatus]:
    """Return what to tell the user of an error, and the status to end with. Empty: it was told already."""
    from chronovisor.campaigns.campaign import CampaignError
    from chronovisor.kvm.errors import KvmError
    from chronovisor.machine.control import INTERNAL, UNDECIDED, USAGE, ControlError
    from chronovisor.machine.errors import ImageError, MachineError, OutputLostError

    if isinstance(error, ImageError):
        return str(error), ExitStatus.BAD_IMAGE
    if isinstance(error, OutputLostError | CampaignError):
        return str(error), ExitStatus.FAILED
    if isinstance(error, MachineError | KvmError):
        return str(error), ExitStatus.USAGE
    if isinstance(error, ControlError):
        kinds = {
            USAGE: ExitStatus.USAGE,
            UNDECIDED: ExitStatus.UNDECIDED,
            INTERNAL: ExitStatus.INTERNAL_ERROR,
        }
        return str(error), kinds.get(error.kind, ExitStatus.FAILED)
    if type(error).__name__ == "Abort":
        return "", ExitStatus.INTERRUPTED
    # typer's errors about the command line. The package of their base class depends on typer's version.
    message: Callable[[], str] | None = getattr(error, "format_message", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message() if message is not None else "", file=sys.stderr)
        return "", ExitStatus.USAGE
    if message is not None:
        # Checks of values within typer name the kind of error before its sentence.
        return message().replace(": Value error, ", ": "), ExitStatus.USAGE
    import traceback

    traceback.print_exception(error)
    return f"internal error: {type(error).__name__}: {error}", ExitStatus.INTERNAL_ERROR


def _say(message: str, status: ExitStatus, given: Sequence[str]) -> ExitStatus:
    """Write an error on stderr: as one line, or as a JSON object if the command line asks for JSON."""
    from chronovisor.cli.output import printable

    line = printable(" ".join(message.split()))
    if line and "--json" in given:
        import json

        print(json.dumps({"error": line, "status": int(status)}), file=sys.stderr)
    elif line:
        print(f"chronovisor: {line}", file=sys.stderr)
    return status
