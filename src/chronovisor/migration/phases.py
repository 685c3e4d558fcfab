"""The phases of a move, in the order in which its two sides go through them.

Each side tells its probe of a phase before the phase begins. Tests hook in there to make things happen at
that moment; a probe that raises fails the phase, as any other fault would.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias


class SourcePhase(Enum):
    """What the source does."""

    ASK = "asks whether the destination can take the guest"
    COPY = "sends memory in rounds while the guest runs"
    STOP = "stops the guest and samples its time"
    SEND_STATE = "sends the rest of memory and the state, and has READY twice"
    DECIDE = "rules out cancelling: from here on the destination decides"
    COMMIT = "sends COMMIT and waits for the outcome"
    QUERY = "asks again for the outcome"


class DestinationPhase(Enum):
    """What the destination does."""

    CONSIDER = "checks whether it can take the guest, and creates it"
    RECEIVE = "takes memory while the guest runs at the source"
    LOAD = "takes the rest of memory and the state, and answers READY"
    SET_TIME = "has COMMIT: plans the guest's time, sets its clock, then its deadlines"
    RECORD = "writes the outcome down: from here on the guest is the destination's"
    START = "waits out the rounding and lets the guest run"


Probe: TypeAlias = Callable[["SourcePhase | DestinationPhase"], None]
"""Called with a phase that is about to begin."""


def no_probe(phase: SourcePhase | DestinationPhase) -> None:
    """Do nothing: the probe of a move that nobody watches."""


def also_told(first: Probe, second: Probe) -> Probe:
    """Return a probe that tells both."""

    def told(phase: SourcePhase | DestinationPhase) -> None:
        first(phase)
        second(phase)

    return told
