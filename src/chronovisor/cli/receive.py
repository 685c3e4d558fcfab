"""`chronovisor receive`: wait for a guest that moves here, then run it, its console on the terminal."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from chronovisor.cli.background import (
    LOG_SIZE_DEFAULT,
    Detach,
    Foreground,
    LogSize,
    choose_ground,
    parse_log_size,
)
from chronovisor.cli.console_place import ConsoleAt, ConsolePlace, EscapeKeys
from chronovisor.cli.debugging import Record, parse_record
from chronovisor.cli.device_options import Disk, Net
from chronovisor.cli.entrance import Entrance
from chronovisor.cli.guest_end import EndReport
from chronovisor.cli.host_options import (
    Clock,
    Cpu,
    CpuOption,
    Engine,
    EngineOption,
    MemoryLimit,
    Provider,
    ProviderOption,
    Stats,
    TbOrigin,
    TicksPerInstruction,
)
from chronovisor.cli.incoming_move import IncomingMove
from chronovisor.cli.kept_name import keeping_name
from chronovisor.cli.monitor_options import ObjectTexts, Qmp, Stay, parse_monitor
from chronovisor.cli.move_record import summary
from chronovisor.cli.move_request import Token, TokenFile, choose_token
from chronovisor.cli.output import say
from chronovisor.cli.pid_file import PidFile, pid_file
from chronovisor.cli.protection import (
    Allow,
    Insecure,
    Protection,
    TlsCa,
    TlsCert,
    TlsCredentials,
    TlsKey,
)
from chronovisor.cli.reboot_options import Append, Initrd, Kernel, after_reboot
from chronovisor.cli.running import before_the_guest, generated_name, parse_seconds, run_named
from chronovisor.cli.status import ExitStatus
from chronovisor.cli.terminal import ESCAPE_DEFAULT
from chronovisor.cli.tracing import Trace, traced_by, tracing
from chronovisor.kvm.interface import TICKS_PER_INSTRUCTION
from chronovisor.machine.control import ControlServer
from chronovisor.machine.ending import EndReason
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.machine.rehearsal import rehearse
from chronovisor.machine.run_directory import state_directory
from chronovisor.machine.sizes import parse_size, parse_u64
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.migration.address import parse_address
from chronovisor.migration.arrival import Terms
from chronovisor.migration.arrived import Arrived
from chronovisor.migration.outcomes import RecordedOutcomes
from chronovisor.migration.stream import Header
from chronovisor.migration.tcp import TimeLimits
from chronovisor.migration.tracing import UNTRACED
from chronovisor.timebase.clock import RealTime

if TYPE_CHECKING:
    from chronovisor.cli.monitor import Monitor
    from chronovisor.report.trace.file import TraceFile

_DEFER: Final = "defer"
"""In place of an address: one comes later, from a monitor's client."""
_NEXT_AFTER: Final = frozenset(
    {
        EndReason.POWER_OFF,
        EndReason.REBOOT,
        EndReason.RESET,
        EndReason.PANIC,
        EndReason.CRASH,
        EndReason.MOVED,
    }
)
"""How a guest's run may end for another guest to be waited for."""


def command(
    address: Annotated[
        str,
        typer.Argument(
            help="The address to wait at: tcp:HOST:PORT or tls:HOST:PORT (port 0: any free), or unix:PATH; "
            "defer: one that a client of --qmp says (migrate-incoming)."
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            help="What `ps`, `reg` and `migrate` call the guest here. If not given, it keeps its name.",
            metavar="NAME",
        ),
    ] = "",
    tb_origin: TbOrigin = "0",
    clock: Annotated[
        Clock, typer.Option(help="virtual: for guests that come from virtual time, which stands meanwhile.")
    ] = Clock.real,
    ticks_per_instruction: TicksPerInstruction = TICKS_PER_INSTRUCTION,
    engine: EngineOption = Engine.auto,
    cpu: CpuOption = Cpu.auto,
    provider: ProviderOption = Provider.auto,
    memory_limit: MemoryLimit = "4G",
    disk: Disk = None,
    net: Net = "none",
    kernel: Kernel = "",
    initrd: Initrd = "",
    append: Append = "",
    timeout: Annotated[
        str,
        typer.Option(
            help="Seconds to wait for a guest, and then for it to run, before giving up.", metavar="SECONDS"
        ),
    ] = "",
    time_limit: Annotated[
        str,
        typer.Option(
            help="Seconds of silence after which the source is lost.", metavar="SECONDS", show_default="10"
        ),
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
    allow: Allow = None,
    token: Token = "",
    token_file: TokenFile = "",
    record: Record = "",
    qmp: Qmp = "",
    stay: Stay = False,
    object_: ObjectTexts = None,
    console: ConsoleAt = "",
    escape: EscapeKeys = ESCAPE_DEFAULT,
    detach: Detach = False,
    log_size: LogSize = LOG_SIZE_DEFAULT,
    pidfile: PidFile = "",
    once: Annotated[
        bool, typer.Option("--once", help="End when one guest has come and has ended or moved on.")
    ] = False,
    trace: Trace = "",
    stats: Stats = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the move's record, and then how the guest ended, on stderr as JSON objects."
        ),
    ] = False,
) -> int:
    """Wait for guests that are moved here, and run one at a time, its console on the terminal.

    A move that fails or is cancelled leaves this waiting for the next one. When a guest that came has powered
    off, crashed or moved on, it waits again, unless --once says to end then. Ctrl-C ends it until a guest
    reads its console, Ctrl-] twice at any time.

    Everybody who can connect to ADDRESS can run a guest here: prefer unix:PATH on one machine, which only its
    owner can open, and tls: with --allow between machines; --token helps with both. A token that goes over
    tcp: can be read on the way.
    """
    record_bytes = parse_record(record)
    if record_bytes and clock is Clock.real:
        raise MachineError("--record is for guests in virtual time: say --clock virtual")
    if trace and clock is Clock.virtual:
        raise MachineError("--trace of receive is in real time: leave it or --clock virtual out")
    origin = parse_u64(tb_origin, "timebase origin")
    seconds = parse_seconds(timeout)
    silence = parse_seconds(time_limit, "time limit")
    limits = TimeLimits.of(silence) if silence else TimeLimits()
    limits = replace(limits, whole_move=parse_seconds(move_limit, "move limit") or limits.whole_move)
    place = None if address == _DEFER else parse_address(address, listen=True, insecure=insecure)
    if place is None and not qmp:
        raise MachineError("receive defer waits for a client of a monitor: give --qmp")
    if qmp and not once:
        raise MachineError("a monitor is for one guest: give --once with --qmp")
    protection = Protection.choose(insecure, tls_credentials, tls_ca, tls_cert, tls_key, allow)
    monitor_options = parse_monitor(qmp, stay, object_, protection)
    again = after_reboot(kernel, initrd, append)
    attachments = Attachments.parse(disk or (), net)
    attachments.check()
    log_bytes = parse_log_size(log_size)
    at = ConsolePlace.parse(console, escape, detach, protection)
    ground = choose_ground(detach, as_json)
    keeps_name = not name
    name = name or generated_name()

    def host_for(header: Header) -> Host:
        topology = header.topology
        host = Host(
            tb_origin=origin,
            clock=clock.value,
            cores=topology.cores,
            threads=topology.threads,
            cpu=cpu.value,
            engine=engine.value,
            provider=provider.value,
            ticks_per_instruction=ticks_per_instruction,
        )
        host.after_reboot = again
        host.attachments = attachments
        return host

    # Opened once before a guest comes: a missing provider should be known now.
    with Host(tb_origin=origin, cpu=cpu.value, engine=engine.value, provider=provider.value):
        pass
    rehearsal = threading.Thread(
        target=rehearse, args=(cpu.value, engine.value, provider.value), name="rehearsal", daemon=True
    )
    before = before_the_guest(name, "waiting")
    with (
        ground,
        pid_file(pidfile),
        ControlServer(name, before) as server,
        tracing(trace, RealTime()) as traced,
    ):
        output = at.console(ground, name, log_bytes)
        incoming = IncomingMove(UNTRACED if traced is None else traced.moves)
        terms = Terms(
            host_for,
            output,
            RecordedOutcomes(state_directory() / "moves"),
            parse_size(memory_limit),
            limits,
            say,
            rehearsal.join,
            protection.credentials,
            choose_token(token, token_file),
            protection.allowed,
            only_one=once,
            trace=incoming,
            record=record_bytes,
            engine=engine.value,
        )
        entrance = Entrance(terms)
        monitor = None if monitor_options is None else monitor_options.monitor(entrance, incoming)
        with at.typing(output), monitor or nullcontext():
            rehearsal.start()
            try:
                waits_at = _DEFER if place is None else str(entrance.open(place))
                ground.begun(address=waits_at)
                say(f"{name} waits at {waits_at}")
                while True:
                    arrived = entrance.wait(seconds)
                    if arrived is None and entrance.given_up:
                        return ExitStatus.OK
                    late = arrived is None
                    # None comes any more, but one may have come just now.
                    arrived = entrance.close() if arrived is None else arrived
                    if arrived is None:
                        say(f"no guest came in {seconds:g} s")
                        return ExitStatus.TIMED_OUT
                    with arrived.host:
                        report = _run(
                            arrived,
                            name,
                            keeps_name,
                            seconds,
                            server,
                            ground,
                            at,
                            monitor,
                            traced,
                            stats,
                            as_json,
                        )
                    status = ground.tell(report)
                    if once or late or report.end.reason not in _NEXT_AFTER:
                        return status
                    output.begin_anew()
                    server.handlers = dict(before)
                    entrance.take_another()
                    say(f"{name} waits for the next guest at {waits_at}")
            finally:
                entrance.close()


def _run(
    arrived: Arrived,
    name: str,
    keeps_name: bool,
    seconds: float | None,
    server: ControlServer,
    ground: Foreground,
    at: ConsolePlace,
    monitor: Monitor | None,
    trace: TraceFile | None,
    stats: bool,
    as_json: bool,
) -> EndReport:
    guest, paused = arrived.start()
    came, record = guest.name, arrived.record
    if trace is not None:
        trace.moves.ends("completed", record.as_json())

    naming = ExitStack()

    def begun() -> None:
        # Not before the guest runs: its source has the name until then.
        if keeps_name and came != name:
            naming.enter_context(keeping_name(guest, came, server))
        say(f"{came} came{' and is paused' if paused is not None else ''}: {summary(record)}")
        if as_json:
            print(json.dumps(record.as_json()), file=sys.stderr, flush=True)

    with naming:
        report = run_named(
            guest,
            name,
            seconds,
            server,
            begun,
            paused,
            monitor=monitor,
            trace=traced_by(trace, guest, came),
            console=at.socket,
            stats=stats,
            ended=ground.ended,
        )
    return report
