"""Where a monitor, a debugger or a console listens: at the user's own socket, or a port."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chronovisor.cli.output import say
from chronovisor.cli.protection import Protection
from chronovisor.machine.door import Door, OpenDoor
from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import Place, UnixAddress, parse_address
from chronovisor.migration.credentials import checked
from chronovisor.migration.listening import listen

_QEMU_OPTIONS: Final = re.compile(r"(,(server(=on)?|nowait|wait=off))*")
"""What QEMU's `-qmp` takes after the address and what is so here anyway."""


@dataclass(frozen=True, slots=True)
class OwnSocket:
    """Where clients connect who control the guest."""

    place: Place
    option: str
    """What the user gave the address to."""
    protection: Protection

    @classmethod
    def parse(cls, text: str, option: str, protection: Protection, any_port: bool = False) -> OwnSocket:
        """Return the place that `text` says; MachineError for any other text.

        Port 0, for any free port, is taken only with `any_port`: somebody has to be told which it is.
        """
        address_text, comma, options = text.partition(",")
        if not _QEMU_OPTIONS.fullmatch(comma + options):
            raise MachineError(f"{option} {text!r}: of QEMU's options server, nowait and wait=off are taken")
        return cls(parse_address(address_text, any_port, protection.insecure), option, protection)

    def open(self) -> Door:
        """Listen there; MachineError for an address that others could reach unprotected, and one that is
        taken.
        """
        try:
            context = None
            if isinstance(self.place, UnixAddress):
                _check_directory(self.place)
            elif self.place.tls:
                context = checked(self.place, self.protection.credentials).server()
            listeners = listen(self.place)
        except MachineError as error:
            raise MachineError(f"{self.option} {error}") from None
        door = OpenDoor(listeners, self._remove)
        if context is None or isinstance(self.place, UnixAddress):
            return door
        # Few guests have clients under TLS.
        from chronovisor.machine.tls_door import TlsDoor

        def tell(line: str) -> None:
            say(f"{self.option} {self.place}: {line}")

        host = f"[{self.place.host}]" if ":" in self.place.host else self.place.host
        return TlsDoor(door, host, context, self.protection.allowed, tell)

    def _remove(self) -> None:
        if isinstance(self.place, UnixAddress):
            Path(self.place.path).unlink(missing_ok=True)


def _check_directory(place: UnixAddress) -> None:
    directory = Path(place.path).parent
    try:
        found = directory.stat()
    except OSError as error:
        raise MachineError(f"{place}: cannot be listened at ({error.strerror})") from None
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise MachineError(
            f"{place}: others can write in {directory}; choose a directory of your own (chmod go-w)"
        )
