"""The other side of a connection: what it is called, what its certificate says, and why it failed."""

from __future__ import annotations

import socket
from typing import Any, Final


def peer_of(connection: socket.socket) -> str:
    """Return what to call the other side of a connection: its address; "this machine" on a unix socket."""
    try:
        name = connection.getpeername()
    except OSError:
        return "a peer that has gone"
    return str(name[0]) if isinstance(name, tuple) else "this machine"


def names_in(connection: socket.socket) -> set[str]:
    """Return the names in the certificate that the other side of a connection under TLS has shown.

    They are the subject's common name and the alternative names (DNS names, addresses, mail, URIs).
    """
    certificate: dict[str, Any] = getattr(connection, "getpeercert", dict)() or {}
    subject = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return subject | {value for _, value in certificate.get("subjectAltName", ())}


def in_words(error: Exception) -> str:
    """Return why a connection failed, as people say it; of TLS's own reasons those that happen."""
    if found := getattr(error, "verify_message", None):
        return f"its certificate is not one to trust ({found})"
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return _TLS_REASONS.get(reason, f"TLS failed ({reason.lower().replace('_', ' ')})")
    if isinstance(error, TimeoutError):
        return "it said nothing for too long"
    return str(getattr(error, "strerror", None) or error)


_TLS_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants to see a certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority that signed the certificate of this side",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate of this side",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate of this side",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate of this side has expired",
    "HTTP_REQUEST": "it does not speak TLS",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "RECORD_LAYER_FAILURE": "it does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "it hung up during the handshake",
    "UNSUPPORTED_PROTOCOL": "it speaks only old versions of TLS; this side wants 1.3",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it wants another version of TLS; this side wants 1.3",
}


def why_not(names: set[str], allowed: frozenset[str]) -> str | None:
    """Return why a certificate with these names is not enough; None if it is.

    One of the names has to be `allowed` (in lower case), unless none is named there.
    """
    if not allowed or allowed.intersection(name.lower() for name in names):
        return None
    return f"its certificate is for {', '.join(sorted(names)) or 'nobody'}, which --allow does not name"
