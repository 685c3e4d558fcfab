"""Processes that must not outlive the one that started them. Any package may use this: it imports none."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int) -> None:
    """Have this process end with the one of number `parent`, its own, however that ends.

    It ends with the thread that started it, says Linux (prctl(2), PR_SET_PDEATHSIG).

    Raises OSError if Linux refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have ended before that was said.
    if os.getppid() != parent:
        os._exit(0)
