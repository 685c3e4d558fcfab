"""`chronovisor receive`: wait for a guest that moves here, then run it, its console on the terminal."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from typing import Annotated, Any

import typer

from chronovisor.cli.host_options import (
    Clock,
    Cpu,
    CpuOption,
    Engine,
    EngineOption,
    MemoryLimit,
    Provider,
    ProviderOption,
    TbOrigin,
)
from chronovisor.cli.move_record import summary
from chronovisor.cli.move_request import Insecure, TlsCa, TlsCert, TlsCredentials, TlsKey, choose_credentials
from chronovisor.cli.running import generated_name, parse_seconds, run_named, say, tell_end
from chronovisor.cli.status import RUN_STATUSES, ExitStatus
from chronovisor.cli.terminal import typing_into, write_stdout
from chronovisor.machine.console import Console
from chronovisor.machine.control import ControlServer
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.machine.rehearsal import rehearse
from chronovisor.machine.run_directory import run_directory
from chronovisor.machine.sizes import parse_size, parse_u64
from chronovisor.migration.address import parse_address
from chronovisor.migration.arrival import Arrivals, Terms
from chronovisor.migration.errors import MoveError
from chronovisor.migration.outcomes import RecordedOutcomes
from chronovisor.migration.stream import Header
from chronovisor.migration.tcp import TimeLimits


def command(
    address: Annotated[
        str,
        typer.Argument(
            help="Where to wait: tcp:HOST:PORT or tls:HOST:PORT (port 0 is any free one), or unix:PATH."
        ),
    ],
    name: Annotated[
        str, typer.Option(help="What `ps`, `reg` and `migrate` call the guest here.", metavar="NAME")
    ] = "",
    tb_origin: TbOrigin = "0",
    clock: Annotated[Clock, typer.Option(help="real: the only one that two processes share.")] = Clock.real,
    engine: EngineOption = Engine.auto,
    cpu: CpuOption = Cpu.auto,
    provider: ProviderOption = Provider.auto,
    memory_limit: MemoryLimit = "4G",
    timeout: Annotated[
        str, typer.Option(help="Seconds to wait, and then to run, before giving up.", metavar="SECONDS")
    ] = "",
    time_limit: Annotated[
        str, typer.Option(help="Seconds of silence after which the source is lost.", metavar="SECONDS")
    ] = "",
    move_limit: Annotated[
        str,
        typer.Option(
            help="Seconds that a whole move may take, from its offer until the guest is stopped.",
            metavar="SECONDS",
        ),
    ] = "",
    tls_credentials: TlsCredentials = "",
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    insecure: Insecure = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the move's record, and then how the guest ended, on stderr as JSON objects."
        ),
    ] = False,
) -> int:
    """Wait for a guest that is moved here, then run it, its console on the terminal, until it powers off."""
    if clock is not Clock.real:
        raise MachineError("a guest cannot come into virtual time from another process; use --clock real")
    origin = parse_u64(tb_origin, "timebase origin")
    seconds = parse_seconds(timeout)
    silence = parse_seconds(time_limit, "time limit")
    limits = TimeLimits.of(silence) if silence else TimeLimits()
    limits = replace(limits, whole_move=parse_seconds(move_limit, "move limit") or limits.whole_move)
    place = parse_address(address, listen=True, insecure=insecure)
    console = Console(write_stdout)
    name = name or generated_name()

    def host_for(header: Header) -> Host:
        topology = header.topology
        return Host(
            tb_origin=origin,
            clock=clock.value,
            cores=topology.cores,
            threads=topology.threads,
            cpu=cpu.value,
            engine=engine.value,
            provider=provider.value,
        )

    # Opened once before a guest comes: a provider that is not there is better known now.
    with Host(tb_origin=origin, cpu=cpu.value, engine=engine.value, provider=provider.value):
        pass
    rehearsal = threading.Thread(
        target=rehearse, args=(cpu.value, engine.value, provider.value), name="rehearsal", daemon=True
    )
    terms = Terms(
        host_for,
        console,
        RecordedOutcomes(run_directory() / "moves"),
        parse_size(memory_limit),
        limits,
        say,
        rehearsal.join,
        choose_credentials(tls_credentials, tls_ca, tls_cert, tls_key, "server"),
    )
    waiting = {"name": name, "pid": os.getpid(), "state": "waiting"}
    nothing = dict.fromkeys(("vcpus", "memory", "host_tb", "guest_tb", "tb_offset"))

    def ps(request: dict[str, Any]) -> dict[str, Any]:
        return waiting | nothing

    with ControlServer(name, {"ps": ps}) as server, typing_into(console):
        rehearsal.start()
        arrivals = Arrivals(place, terms)
        try:
            say(f"{name} waits at {arrivals.address}")
            try:
                arrived = arrivals.wait(seconds)
            except MoveError as error:
                say(str(error))
                return ExitStatus.FAILED
            if arrived is None:
                say(f"no guest came in {seconds:g} s")
                return ExitStatus.TIMED_OUT
            with arrived.host:
                guest = arrived.destination.start(running=True)
                came, record = guest.name, arrived.record

                def begun() -> None:
                    say(f"{came} came: {summary(record)}")
                    if as_json:
                        print(json.dumps(record.as_json()), file=sys.stderr, flush=True)

                end = run_named(guest, name, seconds, server, begun)
        finally:
            arrivals.close()
    return tell_end(end, as_json)


command.__doc__ = f"{command.__doc__}\n\n{RUN_STATUSES}"
