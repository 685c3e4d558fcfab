"""How much of the long tests `make soak` runs: CHRONOVISOR_SOAK says it, in percent.

They are the tests marked `soak`: whole programs. Most cannot be cut: they are run whole at any percentage.
What can be cut into tasks is a campaign (tests/long.py).
"""

from __future__ import annotations

import os
import secrets
from typing import Final

PERCENT: Final = int(os.environ.get("CHRONOVISOR_SOAK", "0"))
"""0 if nobody asked for the long tests; they are skipped then."""


def share(whole: int) -> int:
    """Return how many of `whole` cases are run: at least one."""
    return -(-whole * max(PERCENT, 1) // 100)


def new_seed() -> int:
    """Return a new seed each time, unless CHRONOVISOR_SEED repeats one. A failure has to name it."""
    return int(os.environ.get("CHRONOVISOR_SEED", secrets.randbits(32)))
