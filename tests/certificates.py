"""Certificates for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

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

    def revoke(self, name: str, role: str, told: str) -> None:
        """Take the certificate of a directory back, and tell so in the directory `told`."""
        directory = self._directory
        certificate = x509.load_pem_x509_certificate((directory / name / f"{role}-cert.pem").read_bytes())
        key = load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        now, day = datetime.now(UTC), timedelta(days=1)
        taken_back = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        list_of_them = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.issuer)
            .last_update(now - day)
            .next_update(now + day)
            .add_revoked_certificate(taken_back.revocation_date(now - day).build())
            .sign(key, SHA256())
        )
        (directory / told / "ca-crl.pem").write_bytes(list_of_them.public_bytes(Encoding.PEM))

    def credentials(self, name: str, role: str, *, trusts: Authority | None = None) -> Credentials:
        return Credentials.in_directory(self.directory(name, trusts=trusts), role)
