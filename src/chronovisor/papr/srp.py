"""SRP's information units and VIO's management datagrams, as the guest's adapter sends and reads them.

Sources: T10's SCSI RDMA Protocol (SRP), project 1415-D, for information units; LoPAR 1.1, "Virtual SCSI", for
what is sent through a command queue. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

LARGEST_UNIT: Final = 256
"""Bytes of an information unit."""
MOST_DESCRIPTORS: Final = 1024
"""Pieces of memory that a command's data may lie in."""
LARGEST_TABLE: Final = MOST_DESCRIPTORS * 16
"""Bytes of a table of descriptors."""
LARGEST_TRANSFER: Final = 1 << 20
"""Bytes that one command may carry: what the adapter tells the guest."""


class Message(IntEnum):
    """The first byte of a queue's message."""

    REQUEST = 0x80
    INITIALIZATION = 0xC0


class Initialization(IntEnum):
    """The second byte of a message that begins the conversation."""

    BEGIN = 1
    COMPLETE = 2


class Format(IntEnum):
    """The second byte of a message that names an information unit."""

    SRP = 1
    MANAGEMENT = 2


class Opcode(IntEnum):
    """The first byte of an SRP information unit."""

    LOGIN_REQUEST = 0x00
    TASK_MANAGEMENT = 0x01
    COMMAND = 0x02
    INITIATOR_LOGOUT = 0x03
    LOGIN_RESPONSE = 0xC0
    RESPONSE = 0xC1


class Management(IntEnum):
    """Types of management datagrams that are answered."""

    ADAPTER_INFO = 3


MANAGEMENT_NOT_SUPPORTED: Final = 0xF1
_NO_DESCRIPTOR, DIRECT, _INDIRECT = 0, 1, 2
_BUFFER_FORMATS: Final = 0x6
"""Direct and indirect buffers."""

_MESSAGE: Final = struct.Struct(">BBBBHHQ")
_COMMAND: Final = struct.Struct(">B4xBBBQ4x8s2xxB16s")
_RESPONSE: Final = struct.Struct(">BB2xIQ2xBBIIII")
_LOGIN_RESPONSE: Final = struct.Struct(">B3xIQIIHB25x")
_MANAGEMENT: Final = struct.Struct(">IHHQQ")
_ADAPTER_INFO: Final = struct.Struct(">8s96sIII8I")
_DESCRIPTOR: Final = struct.Struct(">QII")
_INDIRECT_HEAD: Final = struct.Struct(">QIII")
_TAG: Final = struct.Struct(">Q")
_TAG_AT: Final = 8

_RESPONSE_VALID, _SENSE_VALID, _OUT_OVER, _IN_OVER = 0x01, 0x02, 0x04, 0x10


class UnitError(Exception):
    """An information unit that makes no sense."""


class Request(NamedTuple):
    """What a queue's message names: an information unit in guest memory."""

    format: int
    size: int
    address: int
    """An I/O address."""


def parse_message(message: bytes) -> Request:
    """Return what a message of 16 bytes that begins with `Message.REQUEST` names."""
    _, form, _, _, _, size, address = _MESSAGE.unpack(message)
    return Request(form, min(size, LARGEST_UNIT), address)


def answer_message(form: int, size: int, tag: int) -> bytes:
    """Return the message that says that a request's answer is where the request was."""
    return _MESSAGE.pack(Message.REQUEST, form, 0, 0, 0, size, tag)


def initialization(kind: Initialization) -> bytes:
    """Return a message of the conversation's beginning."""
    return _MESSAGE.pack(Message.INITIALIZATION, kind, 0, 0, 0, 0, 0)


def tag_of(unit: bytes) -> int:
    """Return the number by which the guest finds its request again; UnitError for a unit without one."""
    if len(unit) < _TAG_AT + _TAG.size:
        raise UnitError("an information unit ends before its tag")
    tag: int = _TAG.unpack_from(unit, _TAG_AT)[0]
    return tag


class Piece(NamedTuple):
    """A piece of a command's data."""

    address: int
    """An I/O address."""
    size: int


class Data(NamedTuple):
    """Where a command's data is: its pieces, or where the list of them is if the unit does not hold it."""

    pieces: tuple[Piece, ...] = ()
    table: Piece | None = None
    """Descriptors in guest memory."""


class Command(NamedTuple):
    """A SCSI command."""

    lun: int
    """The first two bytes of the logical unit's number."""
    cdb: bytes
    out: Data
    """What goes to the device."""
    into: Data
    """Where what comes from the device goes."""


def parse_command(unit: bytes) -> Command:
    """Return the command in an information unit; UnitError if it makes no sense."""
    if len(unit) < _COMMAND.size:
        raise UnitError("an SRP command that is too short")
    _, formats, outs, ins, _, lun, more, cdb = _COMMAND.unpack_from(unit)
    at = _COMMAND.size + (more & ~3)
    out, at = _data(unit, at, formats >> 4, outs)
    into, _ = _data(unit, at, formats & 0xF, ins)
    return Command(int.from_bytes(lun[:2], "big"), cdb, out, into)


NO_DATA: Final = Data()
"""Of a command that has none in this direction."""


def _data(unit: bytes, at: int, form: int, count: int) -> tuple[Data, int]:
    """Return the data that descriptors from `at` on describe, and what is behind these."""
    try:
        if form == _NO_DESCRIPTOR:
            return NO_DATA, at
        if form == DIRECT:
            address, _, size = _DESCRIPTOR.unpack_from(unit, at)
            return Data((Piece(address, size),)), at + _DESCRIPTOR.size
        if form == _INDIRECT:
            table, _, length, _ = _INDIRECT_HEAD.unpack_from(unit, at)
            at += _INDIRECT_HEAD.size
            behind = at + (count * _DESCRIPTOR.size)
            if length <= behind - at and at + length <= len(unit):
                return Data(parse_descriptors(unit[at : at + length])), behind
            return Data(table=Piece(table, length)), behind
    except struct.error:
        raise UnitError("an SRP command ends before its last descriptor") from None
    raise UnitError(f"an SRP command with buffers of the unknown format {form}")


def parse_descriptors(table: bytes) -> tuple[Piece, ...]:
    """Return the pieces that a table of descriptors names; UnitError if they are too many or not whole."""
    count, rest = divmod(len(table), _DESCRIPTOR.size)
    if rest or count > MOST_DESCRIPTORS:
        raise UnitError(f"a table of descriptors of {len(table)} bytes")
    return tuple(Piece(address, size) for address, _, size in _DESCRIPTOR.iter_unpack(table))


def response(tag: int, status: int, sense: bytes, left_out: int, left_in: int) -> bytes:
    """Return the answer to a command; `left_out` and `left_in` are bytes of its buffers that it did not use.

    Linux's driver takes these from the fields that SRP has for the opposite case.
    """
    flags = _SENSE_VALID if sense else 0
    flags |= (_OUT_OVER if left_out else 0) | (_IN_OVER if left_in else 0)
    head = _RESPONSE.pack(Opcode.RESPONSE, 0, 1, tag, flags, status, left_out, left_in, len(sense), 0)
    return head + sense


def task_response(tag: int) -> bytes:
    """Return the answer to a task management request: it is done."""
    return _RESPONSE.pack(Opcode.RESPONSE, 0, 1, tag, _RESPONSE_VALID, 0, 0, 0, 0, 4) + bytes(4)


def login_response(tag: int, requests: int) -> bytes:
    """Return the answer to a login: how many requests may be under way at once."""
    return _LOGIN_RESPONSE.pack(
        Opcode.LOGIN_RESPONSE, requests, tag, LARGEST_UNIT, LARGEST_UNIT, _BUFFER_FORMATS, 0
    )


def parse_management(unit: bytes) -> tuple[int, Piece]:
    """Return a datagram's type, and where its buffer is; UnitError if it makes no sense."""
    if len(unit) < _MANAGEMENT.size:
        raise UnitError("a management datagram that is too short")
    kind, _, length, _, buffer = _MANAGEMENT.unpack_from(unit)
    return kind, Piece(buffer, length)


def management_answer(unit: bytes, status: int) -> bytes:
    """Return the datagram with its status."""
    kind, _, length, tag, buffer = _MANAGEMENT.unpack_from(unit)
    return _MANAGEMENT.pack(kind, status, length, tag, buffer)


def adapter_info() -> bytes:
    """Return what the adapter says of itself."""
    largest: Sequence[int] = (LARGEST_TRANSFER, *[0] * 7)
    # As a Linux server: to one of another system the guest would send more datagrams.
    linux = 2
    return _ADAPTER_INFO.pack(b"16.a", b"chronovisor", 0, 1, linux, *largest)
