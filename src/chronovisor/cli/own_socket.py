"""Where a monitor or a console listens: at the user's own socket, or a port of this machine's loopback."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Final

from chronovisor.machine.errors import MachineError
from chronovisor.machine.run_directory import is_listened_to
from chronovisor.migration.address import Address, UnixAddress, parse_address

_QEMU_OPTIONS: Final = re.compile(r"(,(server(=on)?|nowait|wait=off))*")
"""What QEMU's `-qmp` takes after the address and what is so here anyway."""


def listen(text: str, option: str) -> tuple[socket.socket, Path | None]:
    """Return a socket that listens at the address that `text` says, and its file if it has one.

    `option` is what the user gave the address to. MachineError for any other text, an address that others
    could reach, and one that is taken.
    """
    address_text, comma, options = text.partition(",")
    if not _QEMU_OPTIONS.fullmatch(comma + options):
        raise MachineError(f"{option} {text!r}: of QEMU's options server, nowait and wait=off are taken")
    # Not any free port: nobody would be told which.
    address = parse_address(address_text)
    try:
        if isinstance(address, UnixAddress):
            return _listen_at_file(Path(address.path), option)
        return _listen_at_port(address, option), None
    except OSError as error:
        raise MachineError(f"{option} {address}: cannot be listened at ({error.strerror or error})") from None


def _listen_at_port(address: Address, option: str) -> socket.socket:
    try:
        host = ipaddress.ip_address("127.0.0.1" if address.host == "localhost" else address.host)
    except ValueError:
        host = None
    if address.tls or host is None or not host.is_loopback:
        raise MachineError(
            f"{option} {address}: whoever can connect controls the guest, so the port must be of this "
            "machine's loopback (tcp:127.0.0.1:PORT); unix:PATH is the user's alone"
        )
    listener = socket.socket(socket.AF_INET6 if host.version == 6 else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(host), address.port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _listen_at_file(path: Path, option: str) -> tuple[socket.socket, Path]:
    directory = path.parent.stat()
    if directory.st_uid != os.getuid() or directory.st_mode & 0o022:
        raise MachineError(
            f"{option} unix:{path}: others can write in {path.parent}; choose a directory of your own "
            "(chmod go-w)"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not is_listened_to(path):
            # A process that was killed left it.
            path.unlink()
        # The file gets this mode: at no moment can another user connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener, path
