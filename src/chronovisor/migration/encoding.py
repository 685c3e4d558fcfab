"""Messages as bytes: for each kind of message its number, and how each of its fields is written.

This version of the format is written; this one and the one before are read (`KINDS_BEFORE`). All numbers are
big-endian. A decoder accepts what the encoder can have written and nothing else: every value in range,
every register known, no byte left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chronovisor.machine.sizes import MAXIMUM_VCPUS, check_topology
from chronovisor.migration.device_encoding import MAXIMUM_DEVICES
from chronovisor.migration.errors import StreamError
from chronovisor.migration.guest_encoding import (
    IDEAL,
    MACHINE,
    MACHINE_BEFORE,
    POLICY,
    RECORD,
    SREGS,
    TYPED,
    VCPU,
)
from chronovisor.migration.kinds import (
    GUEST_TIME,
    TEXT,
    TICKS,
    U8,
    U32,
    U64,
    Cursor,
    Kind,
    array_of,
    bytes_of,
    fields_of,
    optional,
)
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Acknowledged,
    Commit,
    Measure,
    Message,
    Offer,
    Past,
    Query,
    Ready,
    Received,
    Refused,
    Round,
    Running,
    State,
    Unknown,
)
from chronovisor.migration.past_encoding import PAST_PART

MAXIMUM_TOKEN: Final = 1000
"""Bytes of the secret that a source shows."""
_MAXIMUM_REGISTERS: Final = 1024

TOPOLOGY = fields_of(check_topology, vcpus=U32, threads=U32)
_NO_MEMORY: Final[Kind[tuple[Any, ...]]] = Kind(lambda memory: b"", lambda cursor: ())
"""Memory goes ahead of its message in frames of its own."""

# The messages

_OFFER_FIELDS: Final[dict[str, Kind[Any]]] = {
    "move": TEXT,
    "clock": TEXT,
    "frequency": U64,
    "origin": U64,
    "pvr": U32,
    "dec_bits": U8,
    "topology": TOPOLOGY,
    "memory_size": U64,
    "name": TEXT,
    "guest_time": GUEST_TIME,
    "limit": TICKS,
    "policy": POLICY,
    "registers": array_of(U64, _MAXIMUM_REGISTERS, "registers"),
    "sregs": optional(SREGS),
    "token": bytes_of(MAXIMUM_TOKEN, "a token"),
}
_OFFER = fields_of(Offer, **_OFFER_FIELDS, devices=array_of(U32, MAXIMUM_DEVICES, "devices"))


def _state(machine: Kind[Any]) -> Kind[State]:
    return fields_of(
        State,
        machine=machine,
        vcpus=array_of(VCPU, MAXIMUM_VCPUS, "vCPUs"),
        memory=_NO_MEMORY,
        typed=TYPED,
        paused_at=optional(GUEST_TIME),
    )


_COMMIT = fields_of(Commit, guest_time=GUEST_TIME, ideal=IDEAL, since_sample=TICKS, dwell=TICKS)

KINDS: Final[dict[int, tuple[type, Kind[Any]]]] = {
    1: (Offer, _OFFER),
    2: (Accepted, fields_of(Accepted)),
    3: (Refused, fields_of(Refused, reason=TEXT)),
    4: (State, _state(MACHINE)),
    5: (Ready, fields_of(Ready)),
    6: (Commit, _COMMIT),
    7: (Acknowledged, fields_of(Acknowledged, record=RECORD)),
    8: (Aborted, fields_of(Aborted, reason=TEXT)),
    9: (Query, fields_of(Query, move=TEXT)),
    10: (Unknown, fields_of(Unknown)),
    11: (Round, fields_of(Round, number=U32, memory=_NO_MEMORY)),
    12: (Received, fields_of(Received)),
    13: (Running, fields_of(Running, after=TICKS)),
    14: (Measure, fields_of(Measure)),
    15: (Past, fields_of(Past, part=PAST_PART)),
}
"""A message's number in the stream, its type, and how it is written."""

KINDS_BEFORE: Final[dict[int, tuple[type, Kind[Any]]]] = {
    **KINDS,
    1: (Offer, fields_of(Offer, **_OFFER_FIELDS)),
    4: (State, _state(MACHINE_BEFORE)),
}
"""Those of version 4."""

NUMBERS: Final = {made: number for number, (made, _) in KINDS.items()}


def encode(message: Message) -> bytes:
    """Return the message as bytes, but for its memory; StreamError for what the stream cannot hold."""
    return KINDS[NUMBERS[type(message)]][1].write(message)


def decode(number: int, payload: bytes, kinds: Mapping[int, tuple[type, Kind[Any]]] = KINDS) -> Message:
    """Return the message of that number; StreamError if the bytes are no such message."""
    if number not in kinds:
        raise StreamError(f"a message of the unknown kind {number}")
    cursor = Cursor(payload)
    message: Message = kinds[number][1].read(cursor)
    cursor.finish()
    return message
