"""The options that protect what goes over a network: moves, monitors, debuggers, consoles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from chronovisor.cli.output import say
from chronovisor.machine.errors import MachineError
from chronovisor.migration.credentials import Credentials

Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", help="Let tcp: addresses be of a network, where everybody can read and connect."
    ),
]
TlsCredentials = Annotated[
    str,
    typer.Option(
        help="For tls: a directory as QEMU's x509 credentials: ca-cert.pem, server-cert.pem and "
        "server-key.pem of who listens, client-cert.pem and client-key.pem of who connects; ca-crl.pem if "
        "certificates were revoked.",
        metavar="DIR",
    ),
]
TlsCa = Annotated[str, typer.Option(help="For tls: the authority that signed the other side's certificate.")]
TlsCert = Annotated[str, typer.Option(help="For tls: this side's certificate.")]
TlsKey = Annotated[str, typer.Option(help="For tls: the key of that certificate.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="For tls: who may connect here, by a name in the certificate (its common name or an alternative "
        "name). May be repeated. Without it: all whose certificate the authority signed.",
        metavar="NAME",
    ),
]


def choose_credentials(directory: str, ca: str, certificate: str, key: str, role: str) -> Credentials | None:
    """Return the credentials that the options name, None if no option is given; MachineError if some are
    missing.

    `role` is "client" or "server": which files of a directory are meant. A key that others can read is
    warned of.
    """
    if directory:
        if ca or certificate or key:
            raise MachineError("say --tls-credentials, or --tls-ca, --tls-cert and --tls-key, not both")
        found = Credentials.in_directory(directory, role)
    elif ca or certificate or key:
        if not (ca and certificate and key):
            raise MachineError("--tls-ca, --tls-cert and --tls-key belong together: say all three")
        found = Credentials(ca, certificate, key).absolute()
    else:
        return None
    if (warning := found.warning()) is not None:
        say(warning)
    return found


@dataclass(frozen=True, slots=True)
class Protection:
    """What stands between a network and the places at which this process listens."""

    insecure: bool = False
    """Whether the user allows places of a network without TLS."""
    credentials: Credentials | None = None
    """What places under TLS need."""
    allowed: frozenset[str] = frozenset()
    """The names in certificates under which clients may come, in lower case; empty if all may that the
    authority signed.
    """

    @classmethod
    def choose(
        cls, insecure: bool, directory: str, ca: str, certificate: str, key: str, allow: list[str] | None
    ) -> Protection:
        """Return what the options say; MachineError as `choose_credentials`."""
        return cls(
            insecure,
            choose_credentials(directory, ca, certificate, key, "server"),
            frozenset(name.lower() for name in allow or ()),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON's types, for the process that is to listen: names of files, nothing secret."""
        return asdict(self) | {"allowed": sorted(self.allowed)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Protection:
        """Return what `as_json` made JSON of."""
        named = found["credentials"]
        credentials = None if named is None else Credentials(**named)
        return cls(found["insecure"], credentials, frozenset(found["allowed"]))
