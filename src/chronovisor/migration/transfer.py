"""The record of a transfer: what a move sent, and what its downtime went into.

What the move did to the guest's time is another record's (`timebase.record.MoveRecord`); as JSON the two are
one object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from chronovisor.timebase.record import MoveRecord


@dataclass(frozen=True, slots=True)
class Transfer:
    """What it took to bring a guest over, as its source saw it.

    The downtime is last round, device state, handshake and the wait for the rounding, in this order; what the
    guest waited beyond, until its vCPUs were let go, is `resume_ns`.
    """

    rounds: int
    """How often memory was gone over: while the guest ran, and once more when it had stopped."""
    memory_bytes: int
    """The guest's memory, all of it."""
    sent_bytes: int
    """Of memory, in all rounds together; pages that are all zeros are named, not sent."""
    zero_bytes: int
    """Of memory that was named as all zeros, since it had been something else before."""
    duration_ns: int
    """From the beginning, before the destination was asked, to the answer to COMMIT."""
    last_round_ns: int
    """From the sample of the guest's time until memory was handed to the way."""
    device_state_ns: int
    """From then until READY came for the first time: registers and the machine's state, sent and set."""
    handshake_ns: int
    """From that READY until COMMIT reached the destination (the middle of what is known of that)."""
    resume_ns: int | None = None
    """From the moment at which the guest was allowed to run until it was let go, by the destination's clock;
    None if the destination did not say.
    """


@dataclass(frozen=True, slots=True)
class MoveReport:
    """All that is known of a move: what it did to the guest's time, and what it took."""

    record: MoveRecord
    transfer: Transfer

    def as_json(self) -> dict[str, int | None]:
        """Return the report as one object of JSON: the fields of both, by name."""
        return {**asdict(self.record), **asdict(self.transfer)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MoveReport:
        """Return the report that `as_json` made this of."""
        return cls(
            MoveRecord(**{field.name: value[field.name] for field in fields(MoveRecord)}),
            Transfer(**{field.name: value[field.name] for field in fields(Transfer)}),
        )
