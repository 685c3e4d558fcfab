"""An address to connect to or to listen at: `tcp:HOST:PORT`, `tls:HOST:PORT` or `unix:PATH`."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from chronovisor.machine.errors import MachineError

_NETWORK: Final = re.compile(r"(tcp|tls):(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:\[\]]+)):(\d{1,5})", re.ASCII)
_UNIX: Final = "unix:"
_LONGEST_PATH: Final = 107
"""Bytes of a unix socket's path."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host of the network and its port."""

    host: str
    port: int
    tls: bool = False
    """Whether the connection uses TLS, with certificates on both sides."""
    insecure: bool = False
    """Whether the user allows it to go over a network unprotected."""

    def __str__(self) -> str:
        scheme = "tls" if self.tls else "tcp"
        return (
            f"{scheme}:[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}:{self.host}:{self.port}"
        )

    def resolve(self, listen: bool = False) -> list[tuple[socket.AddressFamily, Any]]:
        """Return what to connect to (or `listen` at), in order.

        MachineError if the name is unknown. Without TLS also MachineError if any of the addresses is not this
        machine's loopback, unless `insecure` is set: what goes there is neither secret nor authenticated, and
        everybody who can connect can run a guest here, or controls the one that runs.
        """
        try:
            found = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE if listen else 0
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(f"{self}: the host {self.host} cannot be found ({reason})") from None
        for *_, sockaddr in found:
            if self.tls or self.insecure:
                break
            if not ipaddress.ip_address(str(sockaddr[0]).split("%")[0]).is_loopback:
                raise MachineError(
                    f"{self}: {sockaddr[0]} is not this machine's loopback, so everybody could read it and "
                    f"connect; use {replace(self, tls=True)}, or say --insecure"
                )
        return [(family, sockaddr) for family, _, _, _, sockaddr in found]


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket; every process that may write to its file can send a guest."""

    path: str
    tls: Final = False

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}"

    def resolve(self, listen: bool = False) -> list[tuple[socket.AddressFamily, Any]]:
        """Return what to connect to or listen at."""
        return [(socket.AF_UNIX, self.path)]


Place: TypeAlias = Address | UnixAddress
"""An address at which a destination can wait."""


def parse_address(text: str, listen: bool = False, insecure: bool = False) -> Place:
    """Return the address that `text` says; port 0, which means any free port, is only to `listen` at.

    MachineError for any other text.
    """
    text = text.strip()
    if text.startswith(_UNIX):
        return _unix(text)
    match = _NETWORK.fullmatch(text)
    if match is None:
        raise MachineError(
            f"address {text!r}: write tcp:HOST:PORT, tls:HOST:PORT, tcp:[::1]:PORT or unix:PATH"
        )
    port = int(match[4])
    if not (0 if listen else 1) <= port < 1 << 16:
        raise MachineError(f"address {text!r}: ports are {0 if listen else 1} to 65535")
    return Address(match[2] or match[3], port, match[1] == "tls", insecure)


def _unix(text: str) -> UnixAddress:
    path = text.removeprefix(_UNIX)
    # The two processes may have different working directories.
    if not path or "\0" in path:
        raise MachineError(f"address {text!r}: write unix:PATH")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise MachineError(f"address {text!r}: too long for a socket; choose a path of {_LONGEST_PATH} bytes")
    return UnixAddress(path)
