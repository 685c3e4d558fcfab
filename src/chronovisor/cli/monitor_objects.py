"""The objects of a monitor: TLS credentials by their ids, which moves that the monitor begins can use."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from chronovisor.cli.output import say
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import FileError, open_regular
from chronovisor.machine.qmp.session import Implementation
from chronovisor.migration.credentials import Credentials

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*", re.ASCII)


class Objects:
    """What `object-add` has made. Words of errors are QEMU's."""

    def __init__(self) -> None:
        self._credentials: dict[str, tuple[str, Credentials]] = {}
        """The endpoint, `client` or `server`, and the files, by ids."""
        self.implementations: dict[str, Implementation] = {"object-add": self.add, "object-del": self._remove}

    def add(self, given: dict[str, Any]) -> None:
        """Make an object, as `object-add` with these arguments; MachineError if its files are of no use."""
        name, endpoint = given["id"], given.get("endpoint", "client")
        if not _IDENTIFIER.fullmatch(name):
            raise MachineError("Parameter 'id' expects an identifier")
        if name in self._credentials:
            raise MachineError(f"attempt to add duplicate property '{name}' to object (type 'container')")
        if not given.get("verify-peer", True):
            raise MachineError("both sides of a move show certificates here: verify-peer can be true alone")
        if not given.get("dir"):
            raise MachineError("Missing 'dir' property value")
        made = Credentials.in_directory(given["dir"], endpoint)
        for file in (made.ca, made.certificate, made.key):
            try:
                open_regular(file).close()
            except FileError as error:
                raise MachineError(f"Unable to access credentials {file}: {error}") from None
        # Once for what is wrong with them. They are read again when a move begins.
        _ = made.server() if endpoint == "server" else made.client()
        if (warning := made.warning()) is not None:
            say(warning)
        self._credentials[name] = endpoint, made

    def credentials(self, name: str, endpoint: str, peer: str = "") -> Credentials:
        """Return the credentials with that id, for one whose certificate is for `peer` if that is not empty.

        MachineError unless there are such, for that endpoint.
        """
        if name not in self._credentials:
            raise MachineError(f"No TLS credentials with id '{name}'")
        its_endpoint, found = self._credentials[name]
        if its_endpoint != endpoint:
            raise MachineError(f"Expected TLS credentials for a {endpoint} endpoint")
        return replace(found, peer=peer)

    def _remove(self, given: dict[str, Any]) -> None:
        if self._credentials.pop(given["id"], None) is None:
            raise MachineError(f"object '{given['id']}' not found")
