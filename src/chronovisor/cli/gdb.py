"""`chronovisor gdb`: let gdb at a guest that runs already."""

from __future__ import annotations

import json
import os
import shutil
from typing import Annotated

import typer

from chronovisor.cli.debugging import DEBUGGER_PLACE, GdbTime, Record, parse_record
from chronovisor.cli.guest_name import GuestName
from chronovisor.cli.protection import Allow, Insecure, Protection, TlsCa, TlsCert, TlsCredentials, TlsKey
from chronovisor.cli.time_options import MAX_STEP_DEFAULT, parse_policy
from chronovisor.machine.control import PATIENCE, ask
from chronovisor.machine.errors import MachineError

_DEBUGGERS = ("gdb-multiarch", "powerpc64le-linux-gnu-gdb", "gdb")


def command(
    name: GuestName,
    at: Annotated[
        str,
        typer.Option(help="Where to listen; a free port of this machine.", metavar=DEBUGGER_PLACE),
    ] = "",
    insecure: Insecure = False,
    tls_credentials: TlsCredentials = "",
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    allow: Allow = None,
    gdb_time: GdbTime = "freeze",
    record: Record = "",
    symbols: Annotated[
        str, typer.Option(help="With --attach: the ELF file of what the guest runs.", metavar="FILE")
    ] = "",
    attach: Annotated[bool, typer.Option("--attach", help="Become gdb, connected to the guest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Have a running guest listen for a debugger, and say where. The guest goes on until gdb connects.

    A guest that already listens keeps its address.
    """
    policy = str(parse_policy(gdb_time, MAX_STEP_DEFAULT))
    protection = Protection.choose(insecure, tls_credentials, tls_ca, tls_cert, tls_key, allow)
    answer = ask(
        name,
        "gdb",
        PATIENCE,
        address=at or None,
        time=policy,
        record=parse_record(record),
        protection=protection.as_json(),
    )
    connect = answer["connect"]
    if attach:
        if answer["tls"]:
            raise MachineError(
                f"--attach: gdb speaks no TLS itself; in gdb, with your certificate: {connect}"
            )
        found = next((path for one in _DEBUGGERS if (path := shutil.which(one))), None)
        if found is None:
            raise MachineError(f"there is no gdb here; install gdb-multiarch, then: {connect}")
        os.execv(found, [found, *([symbols] if symbols else []), "-ex", connect])
    print(json.dumps(answer) if as_json else connect)
