"""Listening at an address."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import is_listened_to
from chronovisor.migration.address import Place, UnixAddress


def listen(address: Place) -> list[socket.socket]:
    """Return sockets that listen at the address, with one port for all; MachineError if they cannot."""
    if isinstance(address, UnixAddress):
        return [_listen_at_file(address)]
    listeners: list[socket.socket] = []
    port = address.port
    try:
        for family, sockaddr in address.resolve(listen=True):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((sockaddr[0], port, *sockaddr[2:]))
            listener.listen()
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise MachineError(f"{address}: cannot be listened at ({error.strerror or error})") from None
    return listeners


def _listen_at_file(address: UnixAddress) -> socket.socket:
    path = Path(address.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not is_listened_to(path):
            # A process that was killed left it.
            path.unlink()
        # The file gets this mode: at no moment can another user connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(address.path)
        listener.listen()
    except OSError as error:
        listener.close()
        raise MachineError(f"{address}: cannot be listened at ({error.strerror or error})") from None
    return listener
