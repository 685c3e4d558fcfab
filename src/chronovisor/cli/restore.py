"""`chronovisor restore`: have a guest go on that was saved in a file, its console on the terminal."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from chronovisor.cli.background import LOG_SIZE_DEFAULT, Detach, LogSize, choose_ground, parse_log_size
from chronovisor.cli.console_place import ConsoleAt, ConsolePlace, EscapeKeys
from chronovisor.cli.device_options import Disk, Net
from chronovisor.cli.hop_record import summary
from chronovisor.cli.host_options import (
    Clock,
    ClockOption,
    Cpu,
    Engine,
    EngineOption,
    MemoryLimit,
    Provider,
    ProviderOption,
    RunTimeout,
    Stats,
    TbOrigin,
    TicksPerInstruction,
)
from chronovisor.cli.monitor_options import ObjectTexts, Qmp, Stay, parse_monitor
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
from chronovisor.cli.terminal import ESCAPE_DEFAULT
from chronovisor.cli.time_options import (
    MAX_STEP_DEFAULT,
    TIME_HELP,
    ClockErrorLimit,
    MaxStep,
    parse_limit,
    parse_policy,
    step_note,
)
from chronovisor.cli.tracing import Trace, traced_by, tracing
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.interface import TICKS_PER_INSTRUCTION
from chronovisor.machine.control import ControlServer
from chronovisor.machine.errors import MachineError
from chronovisor.machine.host import Host
from chronovisor.machine.rehearsal import rehearse
from chronovisor.machine.run_directory import check_name
from chronovisor.machine.sizes import parse_size
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.migration.snapshot_format import SnapshotHeader
from chronovisor.migration.snapshot_restore import check, opened, restore_from


def command(
    file: Annotated[str, typer.Argument(help="A snapshot.")],
    name: Annotated[
        str, typer.Option(help="What `ps` and the others call the guest.", show_default="as it was called")
    ] = "",
    tb_origin: TbOrigin = "0",
    time: Annotated[str, typer.Option(help=TIME_HELP, metavar="POLICY")] = "freeze",
    max_step: MaxStep = MAX_STEP_DEFAULT,
    clock_error_limit: ClockErrorLimit = "",
    clock: ClockOption = Clock.real,
    ticks_per_instruction: TicksPerInstruction = TICKS_PER_INSTRUCTION,
    engine: EngineOption = Engine.auto,
    provider: ProviderOption = Provider.auto,
    memory_limit: MemoryLimit = "4G",
    disk: Disk = None,
    changed_disks: Annotated[
        bool,
        typer.Option(
            "--changed-disks",
            help="Have disks that were written to after the guest was saved: what it knows of them is old.",
        ),
    ] = False,
    net: Net = "none",
    kernel: Kernel = "",
    initrd: Initrd = "",
    append: Append = "",
    console: ConsoleAt = "",
    escape: EscapeKeys = ESCAPE_DEFAULT,
    detach: Detach = False,
    log_size: LogSize = LOG_SIZE_DEFAULT,
    pidfile: PidFile = "",
    qmp: Qmp = "",
    stay: Stay = False,
    object_: ObjectTexts = None,
    insecure: Insecure = False,
    tls_credentials: TlsCredentials = "",
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    allow: Allow = None,
    timeout: RunTimeout = "",
    trace: Trace = "",
    stats: Stats = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Say what became of its time, and then how it ended, on stderr as JSON objects."
        ),
    ] = False,
) -> int:
    """Continue a saved guest, its console on the terminal, until it powers off.

    With catch-up or bounded the time away is what CLOCK_BOOTTIME says within one boot of one machine, else
    what the time of day says, which is not to be trusted; a negative one is refused.
    """
    policy, limit = parse_policy(time, max_step), parse_limit(clock_error_limit)
    seconds, most = parse_seconds(timeout), parse_size(memory_limit)
    again = after_reboot(kernel, initrd, append)
    attachments = Attachments.parse(disk or (), net)
    log_bytes = parse_log_size(log_size)
    protection = Protection.choose(insecure, tls_credentials, tls_ca, tls_cert, tls_key, allow)
    monitor = parse_monitor(qmp, stay, object_, protection)
    place = ConsolePlace.parse(console, escape, detach, protection)
    ground = choose_ground(detach, as_json)
    with ground, pid_file(pidfile), ExitStack() as stack:
        with opened(file) as reader:
            name = name or _name_of(reader.header)
            # Taken before the guest is made: a name that is in use ends it before anything is done.
            server = stack.enter_context(ControlServer(name, before_the_guest(name, "restoring")))
            output = place.console(ground, name, log_bytes)
            cpu, host = _host_for(reader.header, tb_origin, clock, ticks_per_instruction, engine, provider)
            stack.enter_context(host)
            host.after_reboot = again
            host.attachments = attachments
            check(reader.header, host, most)
            if clock is Clock.real:
                # A first run takes a while to begin: time that the guest would see pass.
                rehearse(cpu.value, engine.value, provider.value)
            restored = restore_from(reader, host, output, policy, limit, most, changed_disks=changed_disks)
        with tracing(trace, host.clock.source) as traced, place.typing(output):
            guest = restored.start(running=False)
            hop = restored.hop.as_json()

            def begun() -> None:
                ground.begun()
                say(f"{name} goes on: {summary(hop)}")
                note = step_note(hop["elapsed_ticks"], hop["counted_ticks"], time, max_step)
                if note is not None:
                    say(f"{name}: {note}")
                if as_json:
                    print(json.dumps(hop), file=sys.stderr, flush=True)

            report = run_named(
                guest,
                name,
                seconds,
                server,
                begun,
                qmp=monitor,
                trace=traced_by(traced, guest, name),
                console=place.socket,
                stats=stats,
                ended=ground.ended,
            )
    return ground.tell(report)


def _name_of(header: SnapshotHeader) -> str:
    try:
        return check_name(header.name)
    except MachineError:
        # It was saved from Python, or the file is malicious.
        return generated_name()


def _host_for(
    header: SnapshotHeader,
    tb_origin: str,
    clock: Clock,
    ticks_per_instruction: int,
    engine: Engine,
    provider: Provider,
) -> tuple[Cpu, Host]:
    """Return a host with a processor of the guest's version if one can be chosen, else the host that there
    is.
    """
    refused: KvmError | None = None
    for cpu in Cpu:
        try:
            host = Host(
                tb_origin=tb_origin,
                clock=clock.value,
                cores=header.topology.cores,
                threads=header.topology.threads,
                cpu=cpu.value,
                engine=engine.value,
                provider=provider.value,
                ticks_per_instruction=ticks_per_instruction,
            )
        except KvmError as error:
            # Perhaps another processor can have so many threads.
            refused = refused or error
            continue
        facts = host.system.host
        if facts.pvr == header.pvr or facts.provider == "linux":
            return cpu, host
        host.close()
    raise refused or MachineError(
        f"the guest runs on a processor of version {header.pvr:#x}, and there is no such here"
    )
