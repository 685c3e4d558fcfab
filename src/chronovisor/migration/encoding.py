"""Messages as bytes: for each kind of message its number, and how each of its fields is written.

All numbers are big-endian. A decoder accepts what the encoder can have written and nothing else: every value
in range, every register known, no byte left over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from chronovisor.kvm.ids import ONE_REG_BY_ID, ONE_REG_BY_NAME
from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest import MachineState
from chronovisor.machine.sizes import MAXIMUM_VCPUS, check_topology
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.migration.errors import StreamError
from chronovisor.migration.messages import (
    Aborted,
    Accepted,
    Acknowledged,
    Commit,
    Message,
    Offer,
    Query,
    Ready,
    Received,
    Refused,
    Round,
    Running,
    State,
    Unknown,
)
from chronovisor.migration.vcpu_state import CARRIED, VcpuState
from chronovisor.timebase.handover import HandoverError, IdealInterval
from chronovisor.timebase.history import MAXIMUM_HOPS, AwayClock, History, Hop, HopKind
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.record import MoveRecord
from chronovisor.timebase.types import GuestTime, Ticks

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

MAXIMUM_TEXT: Final = 1000
"""Bytes of a name or a reason."""
MAXIMUM_BITMAP: Final = 1 << 17
"""Bytes of the bitmap of memory in use: guests of up to 1 TiB have one."""
MAXIMUM_TYPED: Final = 1 << 16
"""Bytes typed and not yet read by the guest."""
_MAXIMUM_SLB: Final = 64


class Cursor:
    """Bytes being decoded, from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; StreamError where there are fewer."""
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise StreamError("a message ends before its last field")
        self._at += size
        return piece

    def finish(self) -> None:
        """StreamError where anything is left."""
        if self._at != len(self._data):
            raise StreamError(f"a message has {len(self._data) - self._at} byte(s) too many")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How values of one kind are written and read; `read` raises StreamError for what cannot be one."""

    write: Callable[[T], bytes]
    read: Callable[[Cursor], T]


def _number(size: int, signed: bool = False) -> Kind[int]:
    def write(value: int) -> bytes:
        try:
            return value.to_bytes(size, "big", signed=signed)
        except OverflowError:
            raise StreamError(f"{value} does not fit {size} bytes of the stream") from None

    return Kind(write, lambda cursor: int.from_bytes(cursor.take(size), "big", signed=signed))


U8, U16, U32, U64, S64 = _number(1), _number(2), _number(4), _number(8), _number(8, signed=True)


def _as(kind: Kind[Any], out: Callable[[T], Any], into: Callable[[Any], T]) -> Kind[T]:
    """Return the kind of what is written as another kind: `out` and back `into`."""
    return Kind(lambda value: kind.write(out(value)), lambda cursor: _made(into, kind.read(cursor)))


def _made(made: Callable[..., T], *values: Any, **named: Any) -> T:
    """Make a value of what was read; StreamError where it cannot be one."""
    try:
        return made(*values, **named)
    except (HandoverError, MachineError, ValueError) as error:
        raise StreamError(str(error)) from None


def _bytes(limit: int, what: str) -> Kind[bytes]:
    def write(value: bytes) -> bytes:
        if len(value) > limit:
            raise StreamError(f"{what} of {len(value)} bytes: the stream takes {limit}")
        return U32.write(len(value)) + value

    def read(cursor: Cursor) -> bytes:
        size = U32.read(cursor)
        if size > limit:
            raise StreamError(f"{what} of {size} bytes: the stream takes {limit}")
        return cursor.take(size)

    return Kind(write, read)


def _array(kind: Kind[T], limit: int, what: str) -> Kind[tuple[T, ...]]:
    def write(values: tuple[T, ...]) -> bytes:
        if len(values) > limit:
            raise StreamError(f"{len(values)} {what}: the stream takes {limit}")
        return U16.write(len(values)) + b"".join(kind.write(value) for value in values)

    def read(cursor: Cursor) -> tuple[T, ...]:
        count = U16.read(cursor)
        if count > limit:
            raise StreamError(f"{count} {what}: the stream takes {limit}")
        return tuple(kind.read(cursor) for _ in range(count))

    return Kind(write, read)


def _fields(made: Callable[..., T], **kinds: Kind[Any]) -> Kind[T]:
    """Return the kind of an object with these fields, in this order."""

    def write(value: T) -> bytes:
        return b"".join(kind.write(getattr(value, name)) for name, kind in kinds.items())

    def read(cursor: Cursor) -> T:
        return _made(made, **{name: kind.read(cursor) for name, kind in kinds.items()})

    return Kind(write, read)


def _line(text: str) -> bytes:
    """Return text as it may go over: one printable line, cut where it is too long."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown.encode(errors="replace")[:MAXIMUM_TEXT].decode(errors="ignore").encode()


def _printable(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise StreamError("a text is not UTF-8") from None
    # It is shown on the terminal of whoever reads it.
    if not text.isprintable():
        raise StreamError("a text holds characters that cannot be printed")
    return text


def _truth(value: int) -> bool:
    if value > 1:
        raise StreamError(f"{value} is neither true nor false")
    return bool(value)


TEXT = _as(_bytes(MAXIMUM_TEXT, "a text"), _line, _printable)
BOOL = _as(U8, int, _truth)
TICKS = _as(S64, lambda ticks: ticks.value, Ticks)
GUEST_TIME = _as(U64, lambda time: time.value, GuestTime)
TYPED = _bytes(MAXIMUM_TYPED, "typed input")
TOPOLOGY = _fields(check_topology, vcpus=U32, threads=U32)
IDEAL = _fields(IdealInterval, least=S64, most=S64)
RECORD = _fields(
    MoveRecord,
    **{
        field.name: U64 if field.name.endswith(("origin", "before", "after", "offset")) else S64
        for field in fields(MoveRecord)
    },
)

# A guest's state


_GENERATOR_VERSION: Final = 3
_GENERATOR_WORDS: Final = 625
"""Python's generator (the Mersenne Twister) in the third form that its state has had: since Python 3.2."""


def _write_random_state(state: tuple[Any, ...]) -> bytes:
    if not state:
        return BOOL.write(False)
    version, words, gauss = state
    if version != _GENERATOR_VERSION or len(words) != _GENERATOR_WORDS or gauss is not None:
        raise StreamError("the generator's state is none that the stream has a form for")
    return BOOL.write(True) + struct.pack(f">{_GENERATOR_WORDS}I", *words)


def _read_random_state(cursor: Cursor) -> tuple[Any, ...]:
    if not BOOL.read(cursor):
        return ()
    words = struct.unpack(f">{_GENERATOR_WORDS}I", cursor.take(4 * _GENERATOR_WORDS))
    if words[-1] >= _GENERATOR_WORDS:
        raise StreamError("a generator's state is none")
    return (_GENERATOR_VERSION, words, None)


def _one_of(kinds: type[E]) -> Kind[E]:
    """Return the kind of a member of an enumeration, written as its place there."""
    members = list(kinds)

    def read(cursor: Cursor) -> E:
        place = U8.read(cursor)
        if place >= len(members):
            raise StreamError(f"{place} is no {kinds.__name__}")
        return members[place]

    return Kind(lambda value: U8.write(members.index(value)), read)


_ALL: Final = -1
POLICY = _as(
    S64,
    lambda policy: _ALL if policy.most is None else policy.most.value,
    lambda most: TimePolicy(None if most == _ALL else Ticks(most)),
)
HOP = _fields(Hop, kind=_one_of(HopKind), policy=POLICY, clock=_one_of(AwayClock), record=RECORD)
HISTORY = _fields(
    History,
    born=U64,
    hops=_array(HOP, MAXIMUM_HOPS, "hops"),
    folded=U64,
    folded_elapsed_ticks=_number(16, signed=True),
    folded_counted_ticks=_number(16, signed=True),
)
TIME_OF_DAY = _fields(
    TimeOfDay, guest_time=GUEST_TIME, since_epoch=_as(_number(16, signed=True), lambda t: t.value, Ticks)
)
MACHINE = _fields(
    MachineState,
    stopped=_array(BOOL, MAXIMUM_VCPUS, "vCPUs"),
    time_of_day=TIME_OF_DAY,
    random_state=Kind(_write_random_state, _read_random_state),
    history=HISTORY,
)


def _list_of(count: int) -> Kind[list[int]]:
    layout = struct.Struct(f">{count}Q")
    return Kind(
        lambda values: layout.pack(*values), lambda cursor: list(layout.unpack(cursor.take(layout.size)))
    )


REGS = _fields(
    Regs,
    **{
        field.name: _list_of(len(value)) if isinstance(value := getattr(Regs(), field.name), list) else U64
        for field in fields(Regs)
    },
)
SREGS = _fields(
    Sregs,
    pvr=U32,
    sdr1=U64,
    slb=_as(
        _array(_as(_list_of(2), list, lambda pair: (pair[0], pair[1])), _MAXIMUM_SLB, "SLB entries"),
        tuple,
        list,
    ),
)
_CARRIED_IDS: Final = frozenset(register.id for register in CARRIED)


def _one_regs() -> Kind[dict[str, int]]:
    """Each register as KVM's 64-bit id, which says its size, and its value in so many bytes."""

    def write(values: dict[str, int]) -> bytes:
        entries = [
            U64.write(register.id) + _number(register.size).write(values[name])
            for name in values
            for register in [ONE_REG_BY_NAME[name]]
        ]
        return U16.write(len(entries)) + b"".join(entries)

    def read(cursor: Cursor) -> dict[str, int]:
        values: dict[str, int] = {}
        for _ in range(U16.read(cursor)):
            register_id = U64.read(cursor)
            if register_id not in _CARRIED_IDS:
                raise StreamError(f"a register of the unknown id {register_id:#x}")
            register = ONE_REG_BY_ID[register_id]
            if register.name in values:
                raise StreamError(f"{register.name} comes twice")
            values[register.name] = int.from_bytes(cursor.take(register.size), "big")
        return values

    return Kind(write, read)


VCPU = _fields(VcpuState, id=U32, regs=REGS, sregs=SREGS, one_regs=_one_regs(), dec_expiry=U64)
_NO_MEMORY: Final[Kind[tuple[Any, ...]]] = Kind(lambda memory: b"", lambda cursor: ())
"""Memory goes ahead of its message in frames of its own."""

# The messages

_OFFER = _fields(
    Offer,
    move=TEXT,
    clock=TEXT,
    frequency=U64,
    origin=U64,
    pvr=U32,
    dec_bits=U8,
    topology=TOPOLOGY,
    memory_size=U64,
    name=TEXT,
    guest_time=GUEST_TIME,
    limit=TICKS,
    in_use=_bytes(MAXIMUM_BITMAP, "a bitmap"),
)
_STATE = _fields(
    State,
    machine=MACHINE,
    vcpus=_array(VCPU, MAXIMUM_VCPUS, "vCPUs"),
    memory=_NO_MEMORY,
    typed=TYPED,
)
_COMMIT = _fields(Commit, guest_time=GUEST_TIME, ideal=IDEAL, since_sample=TICKS, dwell=TICKS)

KINDS: Final[dict[int, tuple[type, Kind[Any]]]] = {
    1: (Offer, _OFFER),
    2: (Accepted, _fields(Accepted)),
    3: (Refused, _fields(Refused, reason=TEXT)),
    4: (State, _STATE),
    5: (Ready, _fields(Ready)),
    6: (Commit, _COMMIT),
    7: (Acknowledged, _fields(Acknowledged, record=RECORD)),
    8: (Aborted, _fields(Aborted, reason=TEXT)),
    9: (Query, _fields(Query, move=TEXT)),
    10: (Unknown, _fields(Unknown)),
    11: (Round, _fields(Round, number=U32, memory=_NO_MEMORY)),
    12: (Received, _fields(Received)),
    13: (Running, _fields(Running, after=TICKS)),
}
"""A message's number in the stream, its type, and how it is written."""

NUMBERS: Final = {made: number for number, (made, _) in KINDS.items()}


def encode(message: Message) -> bytes:
    """Return the message as bytes, but for its memory; StreamError for what the stream cannot hold."""
    return KINDS[NUMBERS[type(message)]][1].write(message)


def decode(number: int, payload: bytes) -> Message:
    """Return the message of that number; StreamError where the bytes are none."""
    if number not in KINDS:
        raise StreamError(f"a message of the unknown kind {number}")
    cursor = Cursor(payload)
    message: Message = KINDS[number][1].read(cursor)
    cursor.finish()
    return message
