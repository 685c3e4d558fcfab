"""Errors that the user can correct; the text of each is one line for people."""

from __future__ import annotations


class MachineError(Exception):
    """A request that makes no sense: sizes, counts, options. The text says what was wrong and what to do."""


class OutputLostError(MachineError):
    """What the guest printed could not be written to its console's sink."""


class ImageError(MachineError):
    """A guest image that cannot be loaded."""
