"""What each side of a connection authenticates itself with: a certificate, and the authority that it trusts.

Both sides check. A source gives its guest only to a destination whose certificate is signed by the authority
and is for the host that was asked for. A destination takes guests only from sources whose certificates are
signed; so do a monitor and a debugger's door with their clients.
"""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import Place

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in PEM form."""

    ca: str
    """The certificate of the authority that signed the other side's."""
    certificate: str
    key: str
    """Of `certificate`."""
    peer: str = ""
    """Whom the certificate of who listens has to be for; empty for the host that is connected to."""
    revoked: str = ""
    """A list of certificates that the authority takes back; empty for none."""

    @classmethod
    def in_directory(cls, directory: str, role: str) -> Credentials:
        """Return those of a directory as QEMU has them: ca-cert.pem, ROLE-cert.pem and ROLE-key.pem, and
        ca-crl.pem if it is there.

        `role` is "client" for the side that connects, "server" for the one that listens.
        """
        of = Path(directory)
        found = cls(str(of / "ca-cert.pem"), str(of / f"{role}-cert.pem"), str(of / f"{role}-key.pem"))
        revoked = of / "ca-crl.pem"
        # One that cannot be looked at is told of when it is to be used.
        return replace(found, revoked=str(revoked) if os.path.lexists(revoked) else "").absolute()

    def absolute(self) -> Credentials:
        """Return the same files by names that another process understands."""
        ca, certificate, key, revoked = (
            file and str(Path(file).absolute())
            for file in (self.ca, self.certificate, self.key, self.revoked)
        )
        return Credentials(ca, certificate, key, self.peer, revoked)

    def warning(self) -> str | None:
        """Return a line about a key that others can read; None if the owner alone can, or there is no key."""
        try:
            mode = stat.S_IMODE(os.stat(self.key).st_mode)
        except OSError:
            # Whatever uses the key says what is wrong with it.
            return None
        if not mode & 0o077:
            return None
        return f"{self.key}: others can read this private key (mode {mode:o}); chmod 600 it"

    def as_json(self) -> dict[str, str]:
        """Return it as an object of JSON: names of files, nothing secret."""
        return asdict(self)

    def client(self) -> ssl.SSLContext:
        """Return the TLS context of the side that connects; MachineError if a file cannot be used."""
        return self._context(server=False)

    def server(self) -> ssl.SSLContext:
        """Return the TLS context of the side that listens; MachineError if a file cannot be used."""
        return self._context(server=True)

    def _context(self, server: bool) -> ssl.SSLContext:
        # Imported here, because few guests move under TLS and the import would slow every start.
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ValueError) as error:
            raise MachineError(f"{self.ca}: no authority's certificate ({_reason(error)})") from None
        if self.revoked:
            try:
                context.load_verify_locations(self.revoked)
            except (OSError, ValueError) as error:
                raise MachineError(
                    f"{self.revoked}: no list of revoked certificates ({_reason(error)})"
                ) from None
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        try:
            # Never ask for a password: there may be no terminal.
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise MachineError(
                f"{self.certificate} and {self.key}: no certificate and its key ({_reason(error)})"
            ) from None
        return context


def checked(address: Place, credentials: Credentials | None) -> Credentials:
    """Return the credentials; MachineError if they are missing."""
    if credentials is None:
        raise MachineError(
            f"{address}: both sides need certificates; say --tls-credentials DIR, "
            "or --tls-ca, --tls-cert and --tls-key"
        )
    return credentials


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
