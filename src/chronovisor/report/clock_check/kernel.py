"""Messages of a guest's kernel that say that something is wrong with its time."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 200
_KINDS: Final = {
    "soft lockup": re.compile(rb"soft lockup"),
    "hard lockup": re.compile(rb"hard lockup|hard LOCKUP|Watchdog CPU:\d+ detected Hard LOCKUP"),
    "RCU stall": re.compile(rb"rcu(?:_[a-z]+)?: INFO|rcu_[a-z]+ (?:self-)?detected"),
    "hung task": re.compile(rb"blocked for more than \d+ seconds"),
    "long interrupt": re.compile(rb"hrtimer: interrupt took"),
    "clocksource": re.compile(
        rb"clocksource: .*(?:unstable|skew|read back)|Marking clocksource|"
        rb"TSC (?:found )?unstable|[Cc]locksource tsc unstable"
    ),
    "watchdog": re.compile(rb"[Ww]atchdog: BUG|NMI watchdog: .*(?:stuck|lockup)"),
    "time set back": re.compile(rb"(?:timekeeping|clock).*(?:backward|went back)", re.IGNORECASE),
    "panic": re.compile(rb"Kernel panic - not syncing"),
}


def complaint(line: bytes) -> str | None:
    """Return the kind of complaint that a line of the console is, or None."""
    line = line[:_LONGEST]
    return next((kind for kind, pattern in _KINDS.items() if pattern.search(line)), None)


def shown(line: bytes) -> str:
    """Return a line of the console as text that is safe to print: bounded, without control characters."""
    text = line[:_LONGEST].decode("utf-8", "replace").strip()
    return "".join(character if character.isprintable() else "�" for character in text)
