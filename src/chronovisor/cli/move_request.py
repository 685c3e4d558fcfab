"""What `migrate` asks of the process whose guest is to move, and how that process reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import parse_address
from chronovisor.migration.credentials import Credentials
from chronovisor.migration.encoding import MAXIMUM_TOKEN
from chronovisor.migration.precopy import LEAST_BANDWIDTH, MoveLimits
from chronovisor.migration.tcp import TimeLimits
from chronovisor.timebase.policy import TimePolicy
from chronovisor.timebase.types import Ticks

TOKEN_VARIABLE: Final = "CHRONOVISOR_TOKEN"
"""The environment's variable that holds a token."""

Token = Annotated[
    str,
    typer.Option(
        help="A secret that the source shows and the destination asks for. Other users see a command's "
        f"options: use --token-file, or ${TOKEN_VARIABLE}.",
        metavar="SECRET",
    ),
]
TokenFile = Annotated[
    str, typer.Option(help="A file that has the token, and nothing else but a line's end.", metavar="FILE")
]


def choose_token(token: str, file: str) -> bytes:
    """Return the token of the options, or else of the environment; empty if there is none.

    MachineError if both options are given, the file cannot be read, or the token is empty or too long.
    """
    if token and file:
        raise MachineError("say one of --token and --token-file")
    if file:
        try:
            found = Path(file).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise MachineError(f"{file}: {error.strerror or error}") from None
        if not found:
            raise MachineError(f"{file}: there is no token in it")
    else:
        found = (token or os.environ.get(TOKEN_VARIABLE, "")).encode(errors="surrogateescape")
    if len(found) > MAXIMUM_TOKEN:
        raise MachineError(f"a token of {len(found)} bytes: the most is {MAXIMUM_TOKEN}")
    return found


def write_request(
    to: str,
    insecure: bool,
    credentials: Credentials | None,
    time_limit: float | None,
    downtime: float,
    bandwidth: int | None,
    clock_error: Ticks,
    policy: TimePolicy,
    token: bytes,
    stream: int | None,
    suspend: float | None,
) -> dict[str, Any]:
    """Return the request for a move, in JSON's types; MachineError for what makes no sense."""
    address = parse_address(to, insecure=insecure)
    if address.tls and credentials is None:
        raise MachineError(f"{address}: say --tls-credentials DIR, or --tls-ca, --tls-cert and --tls-key")
    if bandwidth is not None and bandwidth < LEAST_BANDWIDTH:
        raise MachineError(f"bandwidth limit {bandwidth}: the least is {LEAST_BANDWIDTH} bytes a second")
    return {
        "to": str(address),
        "insecure": insecure,
        "credentials": credentials.as_json() if credentials is not None else None,
        "time_limit": time_limit,
        "downtime": downtime,
        "bandwidth": bandwidth,
        "clock_error": clock_error.value,
        "time": str(policy),
        "token": token.hex(),
        "stream": stream,
        "suspend": MoveLimits().suspend if suspend is None else suspend,
    }


def read_request(request: dict[str, Any]) -> dict[str, Any]:
    """Return what `Departure.migrate` takes, from a request that `write_request` made."""
    named = request["credentials"]
    return {
        "address": parse_address(request["to"], insecure=request["insecure"]),
        "limits": TimeLimits.of(request["time_limit"]) if request["time_limit"] else TimeLimits(),
        "move_limits": MoveLimits(
            request["downtime"],
            request["bandwidth"],
            Ticks(request["clock_error"]),
            TimePolicy.parse(request["time"]),
            request["stream"],
            request["suspend"],
        ),
        "credentials": Credentials(**named) if named is not None else None,
        "token": bytes.fromhex(request["token"]),
    }
