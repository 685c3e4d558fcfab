"""The state of a guest's virtual devices as bytes: what `save` of each device returns."""

from __future__ import annotations

import struct
from typing import Any, Final

from chronovisor.machine.vio.attachments import DeviceState
from chronovisor.machine.vio.crq import Queue
from chronovisor.machine.vio.dma_window import WINDOW_SIZE, Mapped
from chronovisor.machine.vio.lan import NetworkState
from chronovisor.machine.vio.lan_buffers import MOST_BUFFERS
from chronovisor.machine.vio.lan_receiver import ReceiveQueue
from chronovisor.machine.vio.vscsi import DiskState
from chronovisor.memory import PAGE_SIZE
from chronovisor.migration.errors import StreamError
from chronovisor.migration.kinds import (
    BOOL,
    U8,
    U32,
    U64,
    Cursor,
    Kind,
    array_of,
    bytes_of,
    fields_of,
    written_as,
)

MAXIMUM_DEVICES: Final = 32
_ENTRIES: Final = WINDOW_SIZE // PAGE_SIZE
_MAXIMUM_ROWS: Final = _ENTRIES // 2


def _unpack(data: bytes) -> tuple[int, ...]:
    count, rest = divmod(len(data), 8)
    if rest:
        raise ValueError(f"{len(data)} bytes are no table of TCEs")
    return struct.unpack(f">{count}Q", data)


_WINDOW = array_of(
    fields_of(
        Mapped,
        first=U32,
        entries=written_as(
            bytes_of(8 * _ENTRIES, "TCEs"),
            lambda entries: struct.pack(f">{len(entries)}Q", *entries),
            _unpack,
        ),
    ),
    _MAXIMUM_ROWS,
    "rows of TCEs",
)
_QUEUE = fields_of(Queue, address=U64, size=U32, next=U32)
_DISK = fields_of(
    DiskState,
    unit=U32,
    size=U64,
    read_only=BOOL,
    signals=BOOL,
    window=_WINDOW,
    queue=_QUEUE,
    changed_ns=U64,
)
_MAC_BYTES: Final = 6
_PLAIN_NETWORK: Final[dict[str, Kind[Any]]] = {
    "unit": U32,
    "mac": bytes_of(_MAC_BYTES, "an address"),
    "signals": BOOL,
    "window": _WINDOW,
    "buffer_list": U64,
    "queue": fields_of(ReceiveQueue, address=U64, size=U32, next=U32, toggle=BOOL),
    "buffers": array_of(U64, MOST_BUFFERS, "buffers"),
    "dropped": U64,
}
_NETWORK = fields_of(NetworkState, **_PLAIN_NETWORK, attributes=U64)
_KINDS: Final[dict[int, Kind[Any]]] = {
    1: _DISK,
    2: fields_of(NetworkState, **_PLAIN_NETWORK),
    3: _NETWORK,
}
"""A device's number in the formats, and how its state is written. A network without attributes is one of the
second kind, the only one that older readers know.
"""


def _number(state: DeviceState) -> int:
    if isinstance(state, DiskState):
        return 1
    return 3 if state.attributes else 2


def _write(state: DeviceState) -> bytes:
    number = _number(state)
    return U8.write(number) + _KINDS[number].write(state)


def _read(cursor: Cursor) -> DeviceState:
    number = U8.read(cursor)
    if number not in _KINDS:
        raise StreamError(f"a device of the unknown kind {number}")
    state: DeviceState = _KINDS[number].read(cursor)
    return state


DEVICES: Final = array_of(Kind(_write, _read), MAXIMUM_DEVICES, "devices")
