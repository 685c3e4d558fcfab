"""Where a move goes: `tcp:HOST:PORT`, as people write it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any, Final

from chronovisor.machine.errors import MachineError

_FORM: Final = re.compile(r"tcp:(?:\[([0-9a-fA-F:.%\w]+)\]|([^\s:\[\]]+)):(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A host of the network and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"

    def resolve(self, listen: bool = False) -> list[tuple[socket.AddressFamily, Any]]:
        """Return what to connect to (or `listen` at), in order.

        MachineError where the name is unknown, or any of it is not this machine's loopback: a stream is
        neither secret nor signed, and whoever can send one can run a guest here.
        """
        try:
            found = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE if listen else 0
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(f"{self}: the host {self.host} cannot be found ({reason})") from None
        for *_, sockaddr in found:
            if not ipaddress.ip_address(str(sockaddr[0]).split("%")[0]).is_loopback:
                raise MachineError(
                    f"{self}: {sockaddr[0]} is not this machine's loopback, and guests do not go over a "
                    "network unprotected; use tcp:127.0.0.1:PORT, or tcp:[::1]:PORT, at the end of a tunnel"
                )
        return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def parse_address(text: str, listen: bool = False) -> Address:
    """Return the address that `text` says; port 0, any free one, is for who means to `listen`.

    MachineError for what is no such address.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise MachineError(f"address {text!r}: write tcp:HOST:PORT, or tcp:[::1]:PORT")
    port = int(match[3])
    if not (0 if listen else 1) <= port < 1 << 16:
        raise MachineError(f"address {text!r}: ports are {0 if listen else 1} to 65535")
    return Address(match[1] or match[2], port)
