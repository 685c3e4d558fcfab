"""How values are written as bytes, and read again: numbers, texts, arrays, objects.

All numbers are big-endian. A reader accepts what the writer can have written and nothing else, and never
believes a length that is over its limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from chronovisor.machine.errors import MachineError
from chronovisor.migration.errors import StreamError
from chronovisor.timebase.handover import HandoverError
from chronovisor.timebase.types import GuestTime, Ticks

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

MAXIMUM_TEXT: Final = 1000
"""Bytes of a name or a reason."""


class Cursor:
    """Bytes being decoded, from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; StreamError if there are fewer."""
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise StreamError("a message ends before its last field")
        self._at += size
        return piece

    def finish(self) -> None:
        """StreamError if anything is left."""
        if self._at != len(self._data):
            raise StreamError(f"a message has {len(self._data) - self._at} byte(s) too many")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How values of one kind are written and read; `read` raises StreamError for what cannot be one."""

    write: Callable[[T], bytes]
    read: Callable[[Cursor], T]


def number(size: int, signed: bool = False) -> Kind[int]:
    """Return the kind of integers of so many bytes."""

    def write(value: int) -> bytes:
        try:
            return value.to_bytes(size, "big", signed=signed)
        except OverflowError:
            raise StreamError(f"{value} does not fit {size} bytes of the stream") from None

    return Kind(write, lambda cursor: int.from_bytes(cursor.take(size), "big", signed=signed))


U8, U16, U32, U64 = number(1), number(2), number(4), number(8)
S64, S128 = number(8, signed=True), number(16, signed=True)


def written_as(kind: Kind[Any], out: Callable[[T], Any], into: Callable[[Any], T]) -> Kind[T]:
    """Return the kind of what is written as another kind: `out` and back `into`."""
    return Kind(lambda value: kind.write(out(value)), lambda cursor: _made(into, kind.read(cursor)))


def _made(made: Callable[..., T], *values: Any, **named: Any) -> T:
    """Make a value from what was read; StreamError if that is impossible."""
    try:
        return made(*values, **named)
    except (HandoverError, MachineError, ValueError) as error:
        raise StreamError(str(error)) from None


def bytes_of(limit: int, what: str) -> Kind[bytes]:
    """Return the kind of bytes behind their number, which is `limit` at most; messages call them `what`."""

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


def array_of(kind: Kind[T], limit: int, what: str) -> Kind[tuple[T, ...]]:
    """Return the kind of values of one kind behind their number, which is `limit` at most."""

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


def fields_of(made: Callable[..., T], **kinds: Kind[Any]) -> Kind[T]:
    """Return the kind of an object with these fields, in this order."""

    def write(value: T) -> bytes:
        return b"".join(kind.write(getattr(value, name)) for name, kind in kinds.items())

    def read(cursor: Cursor) -> T:
        return _made(made, **{name: kind.read(cursor) for name, kind in kinds.items()})

    return Kind(write, read)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """Return the kind of a value that may be absent: a byte that says whether it is there, then the value."""
    return Kind(
        lambda value: BOOL.write(False) if value is None else BOOL.write(True) + kind.write(value),
        lambda cursor: kind.read(cursor) if BOOL.read(cursor) else None,
    )


def _line(text: str) -> bytes:
    """Return text as it may be sent: one printable line, cut if it is too long."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown.encode(errors="replace")[:MAXIMUM_TEXT].decode(errors="ignore").encode()


def _printable(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise StreamError("a text is not UTF-8") from None
    # It will be shown on a terminal.
    if not text.isprintable():
        raise StreamError("a text holds characters that cannot be printed")
    return text


def _truth(value: int) -> bool:
    if value > 1:
        raise StreamError(f"{value} is neither true nor false")
    return bool(value)


def member_of(kinds: type[E]) -> Kind[E]:
    """Return the kind of a member of an enumeration, written as its place there."""
    members = list(kinds)

    def read(cursor: Cursor) -> E:
        place = U8.read(cursor)
        if place >= len(members):
            raise StreamError(f"{place} is no {kinds.__name__}")
        return members[place]

    return Kind(lambda value: U8.write(members.index(value)), read)


TEXT = written_as(bytes_of(MAXIMUM_TEXT, "a text"), _line, _printable)
BOOL = written_as(U8, int, _truth)
TICKS = written_as(S64, lambda ticks: ticks.value, Ticks)
GUEST_TIME = written_as(U64, lambda time: time.value, GuestTime)
