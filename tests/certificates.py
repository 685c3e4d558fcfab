"""Certificates for tests."""

from __future__ import annotations

from pathlib import Path

import trustme

from chronovisor.migration.credentials import Credentials

CLIENT = "source.example"
"""Whom the clients' certificates are for."""


class Authority:
    """Signs certificates, and puts them into directories as QEMU has them."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self._directory = directory

    def directory(self, name: str, *, host: str = "localhost", trusts: Authority | None = None) -> str:
        made = self._directory / name
        made.mkdir()
        (trusts or self)._authority.cert_pem.write_to_path(made / "ca-cert.pem")
        for role, certificate in (
            ("server", self._authority.issue_cert(host)),
            ("client", self._authority.issue_cert(CLIENT)),
        ):
            key = made / f"{role}-key.pem"
            certificate.private_key_pem.write_to_path(key)
            key.chmod(0o600)
            for blob in certificate.cert_chain_pems:
                blob.write_to_path(made / f"{role}-cert.pem", append=True)
        return str(made)

    def credentials(self, name: str, role: str, *, trusts: Authority | None = None) -> Credentials:
        return Credentials.in_directory(self.directory(name, trusts=trusts), role)
