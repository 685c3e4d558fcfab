"""A client of the NBD protocol (the Network Block Device project's doc/proto.md), over a unix socket.

One request at a time: its answer is awaited before the next is sent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

_SERVER_MAGIC, _OPTION_MAGIC, _REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x3_E889_0455_65A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
"""Flags of the server's and of the client's in the handshake."""
_OPTION_GO: Final = 7
_REPLY_ACK, _REPLY_INFO = 1, 3
_INFO_EXPORT: Final = 0
_OPTION: Final = struct.Struct(">8sII")
_OPTION_REPLY: Final = struct.Struct(">QIII")
_EXPORT: Final = struct.Struct(">HQH")
_REQUEST: Final = struct.Struct(">IHHQQI")
_REQUEST_MAGIC, _SIMPLE_REPLY_MAGIC = 0x2560_9513, 0x6744_6698
_REPLY: Final = struct.Struct(">IIQ")
_LARGEST_REPLY: Final = 1 << 16
"""Bytes that an option's reply may have."""
_MOST_VIEWS: Final = 1000
"""Pieces of memory in one system call, less than IOV_MAX."""


class _Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4


class NbdClient:
    """A connection to a server, with its default export open. OSError for whatever fails."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._asking = threading.Lock()
        self._handle = 0
        self.size = self._shake_hands()
        """Of the export, in bytes."""

    def _shake_hands(self) -> int:
        magic, option_magic, flags = struct.unpack(">8s8sH", self._receive(18))
        if (magic, option_magic) != (_SERVER_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
            raise OSError(errno.EPROTO, "this is no NBD server")
        self._socket.sendall(struct.pack(">I", _FIXED_NEWSTYLE | flags & _NO_ZEROES))
        no_name_no_wishes = bytes(6)
        self._socket.sendall(
            _OPTION.pack(_OPTION_MAGIC, _OPTION_GO, len(no_name_no_wishes)) + no_name_no_wishes
        )
        size = None
        while True:
            magic, _, kind, length = _OPTION_REPLY.unpack(self._receive(_OPTION_REPLY.size))
            if magic != _REPLY_MAGIC or length > _LARGEST_REPLY:
                raise OSError(errno.EPROTO, "the NBD server's answer makes no sense")
            data = self._receive(length)
            if kind == _REPLY_INFO and length == _EXPORT.size:
                info, found, _ = _EXPORT.unpack(data)
                size = found if info == _INFO_EXPORT else size
            elif kind == _REPLY_ACK and size is not None:
                return int(size)
            elif kind != _REPLY_INFO:
                raise OSError(errno.EPROTO, f"the NBD server refuses: {data.decode(errors='replace')}")

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill memory from an offset on."""
        self._ask(_Command.READ, offset, sum(map(len, into)), into=into)

    def write(self, offset: int, data: Sequence[memoryview]) -> None:
        """Write memory from an offset on."""
        self._ask(_Command.WRITE, offset, sum(map(len, data)), data)

    def flush(self) -> None:
        """Return when all that was written is on the disk."""
        self._ask(_Command.FLUSH, 0, 0)

    def discard(self, offset: int, size: int) -> None:
        """Say that some contents are not needed."""
        self._ask(_Command.TRIM, offset, size)

    def close(self) -> None:
        """End the connection."""
        request = _REQUEST.pack(_REQUEST_MAGIC, 0, _Command.DISCONNECT, 0, 0, 0)
        with contextlib.suppress(OSError):
            self._socket.sendall(request)
        self._socket.close()

    def _ask(
        self,
        command: _Command,
        offset: int,
        size: int,
        data: Sequence[memoryview] = (),
        into: Sequence[memoryview] = (),
    ) -> None:
        with self._asking:
            try:
                self._ask_one(command, offset, size, data, into)
            except ConnectionError:
                raise OSError(errno.EIO, "the NBD server has ended") from None

    def _ask_one(
        self,
        command: _Command,
        offset: int,
        size: int,
        data: Sequence[memoryview],
        into: Sequence[memoryview],
    ) -> None:
        self._handle += 1
        request = memoryview(_REQUEST.pack(_REQUEST_MAGIC, 0, command, self._handle, offset, size))
        self._send([request, *data])
        magic, error, handle = _REPLY.unpack(self._receive(_REPLY.size))
        if (magic, handle) != (_SIMPLE_REPLY_MAGIC, self._handle):
            # What follows cannot be known.
            self._socket.shutdown(socket.SHUT_RDWR)
            raise OSError(errno.EPROTO, "the NBD server's answer makes no sense")
        if error:
            raise OSError(error, os.strerror(error))
        self._fill(into)

    def _send(self, views: Sequence[memoryview]) -> None:
        left = [view for view in views if len(view)]
        while left:
            _advance(left, self._socket.sendmsg(left[:_MOST_VIEWS]))

    def _receive(self, size: int) -> bytes:
        data = bytearray(size)
        self._fill([memoryview(data)])
        return bytes(data)

    def _fill(self, views: Sequence[memoryview]) -> None:
        left = [view for view in views if len(view)]
        while left:
            done = self._socket.recvmsg_into(left[:_MOST_VIEWS])[0]
            if not done:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            _advance(left, done)


def _advance(left: list[memoryview], done: int) -> None:
    """Drop the first bytes of pieces in a row."""
    while left and done >= len(left[0]):
        done -= len(left.pop(0))
    if done:
        left[0] = left[0][done:]
