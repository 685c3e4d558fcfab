"""The options of a command whose guest has a monitor for QMP's clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from chronovisor.cli.own_socket import OwnSocket
from chronovisor.cli.protection import Protection
from chronovisor.machine.errors import MachineError

if TYPE_CHECKING:
    from chronovisor.cli.entrance import Entrance
    from chronovisor.cli.incoming_move import IncomingMove
    from chronovisor.cli.monitor import Monitor
    from chronovisor.cli.monitor_objects import Objects

Qmp: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Answer QMP, QEMU's monitor protocol, at a unix socket, a port of this machine's loopback or, "
        "under TLS, of a network.",
        metavar="unix:PATH|tcp:HOST:PORT|tls:HOST:PORT",
    ),
]
Stay: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--stay", help="With --qmp: when the guest has moved away, stay until a client says quit, as QEMU."
    ),
]
ObjectTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        help="With --qmp: TLS credentials that its moves can use (tls-creds of migrate-set-parameters), as "
        "object-add makes them. May be repeated.",
        metavar="tls-creds-x509,id=ID,dir=DIR,endpoint=client|server",
    ),
]


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """Where clients connect, whether the monitor stays when the guest is gone, and what objects there are."""

    socket: OwnSocket
    stay: bool
    objects: Objects

    def monitor(self, entrance: Entrance | None = None, incoming: IncomingMove | None = None) -> Monitor:
        """Return the monitor; MachineError if it cannot listen there."""
        # Most guests have none.
        from chronovisor.cli.monitor import Monitor

        return Monitor(self.socket, self.stay, self.objects, entrance, incoming)


def parse_monitor(
    qmp: str, stay: bool, object_texts: list[str] | None, protection: Protection
) -> MonitorOptions | None:
    """Return what `--qmp`, `--stay` and `--object` say; None without a monitor.

    MachineError for what makes no sense, and for certificates that cannot be used.
    """
    if not qmp:
        return None
    # Most guests have none.
    from chronovisor.cli.monitor_objects import Objects
    from chronovisor.cli.qemu.object_text import parse_object

    objects = Objects()
    for text in object_texts or ():
        try:
            objects.add(parse_object(text))
        except MachineError as error:
            raise MachineError(f"--object {text}: {error}") from None
    return MonitorOptions(OwnSocket.parse(qmp, "--qmp", protection), stay, objects)
