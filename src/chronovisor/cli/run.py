"""`chronovisor run`: an ELF guest on a host of its own, its console on the terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from chronovisor.cli.background import LOG_SIZE_DEFAULT, Detach, LogSize, choose_ground, parse_log_size
from chronovisor.cli.config_file import Config
from chronovisor.cli.console_place import ConsoleAt, ConsolePlace, EscapeKeys
from chronovisor.cli.debugging import DEBUGGER_PLACE, GdbTime, Record, parse_debugger, parse_record
from chronovisor.cli.device_options import Disk, Net
from chronovisor.cli.guest_log import LogFile, LogItems, guest_log
from chronovisor.cli.host_options import (
    Clock,
    ClockOption,
    Cpu,
    CpuOption,
    Engine,
    EngineOption,
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
from chronovisor.cli.running import before_the_guest, generated_name, parse_seconds, run_named
from chronovisor.cli.terminal import ESCAPE_DEFAULT
from chronovisor.cli.tracing import Trace, traced_by, tracing
from chronovisor.kvm.interface import TICKS_PER_INSTRUCTION
from chronovisor.machine.control import ControlServer
from chronovisor.machine.elf import read_image
from chronovisor.machine.errors import MachineError
from chronovisor.machine.guest_log import parse_items
from chronovisor.machine.host import Host
from chronovisor.machine.sizes import parse_topology
from chronovisor.machine.vio.attachments import Attachments
from chronovisor.report.switch_trace import line
from chronovisor.timebase.trace import Event

_LARGE_KERNEL = 16 << 20
"""Bytes of an image that is taken to be Linux."""
_LINUX_NEEDS = 24 << 20
"""Bytes besides its image: with fewer, Debian's 6.1 for ppc64el says nothing at all."""

if TYPE_CHECKING:
    from chronovisor.machine.guest import Guest
    from chronovisor.migration.pause import Pause


def command(
    image: Annotated[
        str | None, typer.Argument(help="A 64-bit Power ELF file, or one of `chronovisor guests`.")
    ] = None,
    config: Config = "",
    kernel: Annotated[
        str | None, typer.Option(help="The same as IMAGE: a kernel's ELF file (vmlinux).", metavar="FILE")
    ] = None,
    initrd: Annotated[
        str | None, typer.Option(help="The initial RAM disk of a Linux kernel.", metavar="FILE")
    ] = None,
    disk: Disk = None,
    net: Net = "none",
    memory: Annotated[
        str,
        typer.Option(
            help="The guest's memory: bytes, or 512K, 64M, 1G.", show_default="64M; with --kernel 512M"
        ),
    ] = "",
    smp: Annotated[str, typer.Option(help="vCPUs: N, or N,threads=T for virtual cores of T threads.")] = "1",
    host_cores: Annotated[
        int | None,
        typer.Option(
            help="Cores of the host; fewer than the guest's take turns.", show_default="the guest's"
        ),
    ] = None,
    tb_origin: TbOrigin = "0",
    tb_offset: Annotated[
        str, typer.Option(help="The guest's timebase offset in ticks; KVM rounds it up to 2^24.")
    ] = "0",
    clock: ClockOption = Clock.real,
    ticks_per_instruction: TicksPerInstruction = TICKS_PER_INSTRUCTION,
    engine: EngineOption = Engine.auto,
    cpu: CpuOption = Cpu.auto,
    provider: ProviderOption = Provider.auto,
    append: Annotated[str, typer.Option(help="The guest's command line.")] = "",
    rtc: Annotated[
        str,
        typer.Option(
            help="Time of day at the start: base=utc, base=localtime, base=2026-11-28T12:00:00.",
            metavar="base=BASE",
        ),
    ] = "base=utc",
    timeout: RunTimeout = "",
    name: Annotated[
        str, typer.Option(help="What `ps`, `reg` and `migrate` call the guest.", metavar="NAME")
    ] = "",
    no_reboot: Annotated[
        bool, typer.Option("--no-reboot", help="End with status 7 if the guest reboots.")
    ] = False,
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
    paused: Annotated[
        bool,
        typer.Option("--paused", help="Run nothing before `chronovisor resume`, or `cont` of a monitor."),
    ] = False,
    trace_switch: Annotated[
        bool, typer.Option("--trace-switch", help="Print what each entry and exit does to time, on stderr.")
    ] = False,
    gdb: Annotated[
        str,
        typer.Option(
            help="Let gdb connect: to a port, or to a unix socket.",
            metavar=DEBUGGER_PLACE,
        ),
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Run nothing before gdb says so.")] = False,
    gdb_time: GdbTime = "freeze",
    record: Record = "",
    log: LogItems = "",
    log_file: LogFile = "",
    trace: Trace = "",
    stats: Stats = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say how the guest ended as one JSON object, on stderr.")
    ] = False,
) -> int:
    """Run an ELF guest, its console on the terminal, until it powers off.

    Ctrl-C ends it until it reads its console; from then on every key is the guest's. Ctrl-] twice ends it at
    any time (--escape). With --detach this returns when the guest has begun: `console` attaches to it, `wait`
    tells how it ends, `stop` ends it.
    """
    topology = parse_topology(smp)
    seconds = parse_seconds(timeout)
    key, _, base = rtc.partition("=")
    if key != "base":
        raise MachineError(f"rtc {rtc!r}: write base=utc, base=localtime or base=DATE")
    if (image is None) == (kernel is None):
        raise MachineError("run: give one image, as IMAGE or as --kernel FILE")
    log_bytes = parse_log_size(log_size)
    protection = Protection.choose(insecure, tls_credentials, tls_ca, tls_cert, tls_key, allow)
    monitor = parse_monitor(qmp, stay, object_, protection)
    debugger, record_bytes = parse_debugger(gdb, protection, wait, gdb_time), parse_record(record)
    log_items = parse_items(log)
    attachments = Attachments.parse(disk or (), net)
    place = ConsolePlace.parse(console, escape, detach, protection)
    ground = choose_ground(detach, as_json)
    name = name or generated_name()
    with ground, pid_file(pidfile), ExitStack() as stack:
        # Taken before anything is done: the name may be in use.
        server = stack.enter_context(ControlServer(name, before_the_guest(name, "starting")))
        output = place.console(ground, name, log_bytes)
        host = Host(
            tb_origin=tb_origin,
            clock=clock.value,
            cores=topology.cores if host_cores is None else host_cores,
            threads=topology.threads,
            cpu=cpu.value,
            engine=engine.value,
            observer=_print_event if trace_switch else None,
            provider=provider.value,
            ticks_per_instruction=ticks_per_instruction,
        )
        stack.enter_context(host)
        host.attachments = attachments
        guest = host.boot(
            image or kernel or "",
            memory or ("512M" if kernel else "64M"),
            topology.vcpus,
            topology.threads,
            append,
            output,
            tb_offset=tb_offset,
            initrd=initrd,
            reboots=not no_reboot,
        )
        if kernel is not None:
            _tell_of_little_memory(kernel, guest.memory.size)
        guest.wall_clock.start(base)
        guest.platform.log = stack.enter_context(guest_log(log_items, log_file))
        with tracing(trace, host.clock.source) as traced, place.typing(output):
            report = run_named(
                guest,
                name,
                seconds,
                server,
                begun=ground.begun,
                paused=_not_begun(guest) if paused else None,
                debugger=debugger,
                record=record_bytes,
                qmp=monitor,
                trace=traced_by(traced, guest, name),
                console=place.socket,
                stats=stats,
                ended=ground.ended,
            )
    return ground.tell(report)


def _tell_of_little_memory(kernel: str, size: int) -> None:
    """Say so if Linux has too little memory to boot: it stops before it has a console on which to say it."""
    used = read_image(kernel).segments[-1].end
    if used >= _LARGE_KERNEL and size - used < _LINUX_NEEDS:
        say(
            f"{kernel} leaves {size - used >> 20} MiB of the guest's memory to others; "
            f"Linux seldom boots with less than {_LINUX_NEEDS >> 20}: give it more with --memory"
        )


def _not_begun(guest: Guest) -> Pause:
    # Few runs need it.
    from chronovisor.migration.pause import Pause

    return Pause(guest, goes_on=True)


def _print_event(event: Event) -> None:
    print(line(event), file=sys.stderr)
