"""The commands' exit statuses."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Final


class ExitStatus(IntEnum):
    """A command's exit status."""

    OK = 0
    """The command succeeded. `run`: the guest powered off or moved away."""
    FAILED = 1
    """The command was understood and did not succeed; or its output could not be written."""
    USAGE = 2
    """The command line makes no sense, or it names something that is not there."""
    CRASH = 3
    """The guest crashed."""
    BAD_IMAGE = 4
    """The file cannot be used: it is not an image, code or snapshot that Chronovisor can read."""
    UNDECIDED = 5
    """`migrate`: the guest is paused, because this side does not know whether the destination runs it."""
    CLOCK_FAULT = 6
    """`clockcheck`: something is wrong with the guest's clocks."""
    REBOOT = 7
    """The guest rebooted, and it is not started again: `run --no-reboot`, or it came by a move."""
    PANIC = 8
    """The guest's system panicked."""
    QUIT = 9
    """The user ended the guest at its console, by Ctrl-] twice."""
    INTERNAL_ERROR = 70
    """A mistake in Chronovisor."""
    TIMED_OUT = 124
    """The guest still ran, or did not come, when --timeout was over."""
    INTERRUPTED = 130
    """Ctrl-C."""
    KILLED = 137
    """`chronovisor kill` ended the process."""
    ENDED = 143
    """`chronovisor stop`, or SIGTERM, ended the guest."""


IN_HELP: Final = {
    ExitStatus.OK: "success",
    ExitStatus.FAILED: "failure or unwritten output",
    ExitStatus.USAGE: "bad usage",
    ExitStatus.CRASH: "the guest crashed",
    ExitStatus.BAD_IMAGE: "the file cannot be used",
    ExitStatus.UNDECIDED: "undecided: the guest is paused",
    ExitStatus.CLOCK_FAULT: "the guest's clocks are wrong",
    ExitStatus.REBOOT: "the guest rebooted",
    ExitStatus.PANIC: "the guest panicked",
    ExitStatus.QUIT: "ended by Ctrl-] twice",
    ExitStatus.INTERNAL_ERROR: "internal error",
    ExitStatus.TIMED_OUT: "timed out",
    ExitStatus.INTERRUPTED: "Ctrl-C",
    ExitStatus.KILLED: "killed",
    ExitStatus.ENDED: "stopped",
}
"""What the commands' helps say of each status."""
OF_ALL: Final = frozenset(
    {
        ExitStatus.OK,
        ExitStatus.FAILED,
        ExitStatus.USAGE,
        ExitStatus.INTERNAL_ERROR,
        ExitStatus.INTERRUPTED,
    }
)
"""The statuses with which every command can end."""
OF_A_GUEST: Final = (
    ExitStatus.CRASH,
    ExitStatus.REBOOT,
    ExitStatus.PANIC,
    ExitStatus.QUIT,
    ExitStatus.TIMED_OUT,
    ExitStatus.KILLED,
    ExitStatus.ENDED,
)
"""The further statuses of a command that runs a guest."""


def statuses_in_help(more: Iterable[ExitStatus]) -> str:
    """Return the line in a command's help about its statuses: those of all commands, and `more`."""
    return "Exit status: " + ", ".join(
        f"{status.value} {IN_HELP[status]}" for status in sorted({*OF_ALL, *more})
    )
