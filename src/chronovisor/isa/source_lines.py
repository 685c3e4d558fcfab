"""Where in the sources a value was made: a line of a meaning, not of the notation that meanings use."""

from __future__ import annotations

import sys
from types import CodeType, FrameType

#: The files of the notation itself.
NOTATION: set[str] = set()


def caller() -> tuple[CodeType, int]:
    """The nearest code outside the notation that is being executed, and its line."""
    frame: FrameType = sys._getframe(1)
    while frame.f_code.co_filename in NOTATION and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lineno
