"""What the commands end with, declared once."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """A command's exit status."""

    OK = 0
    """All is well; `run`: the guest powered off."""
    FAILED = 1
    """Something is not as it should be: a proof not found, a promise broken, output not written."""
    USAGE = 2
    """The command was given something that makes no sense; one line on stderr says what."""
    CRASH = 3
    """`run`: the guest crashed or gave up."""
    BAD_IMAGE = 4
    """The image is no ELF file that a guest could be loaded from, or whose code could be read; or the
    snapshot is none that can be read."""
    UNDECIDED = 5
    """`migrate`: the guest is paused, as nobody here knows whether it was given away."""
    CLOCK_FAULT = 6
    """`clockcheck`: something is wrong with the guest's clocks."""
    INTERNAL_ERROR = 70
    """A mistake of Chronovisor's own."""
    TIMED_OUT = 124
    """`run`: the guest still ran after --timeout."""
    INTERRUPTED = 130
    """Ctrl-C."""


RUN_STATUSES = """Exit status: 0 the guest powered off or moved away, 1 its output could \
not be written, 2 bad usage, 3 the guest crashed, \
4 bad image, 70 internal error, 124 timed out, 130 Ctrl-C."""
