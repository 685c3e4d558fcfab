"""`chronovisor inspect`: what is in a snapshot."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from chronovisor.cli.hop_record import life
from chronovisor.kvm.registers import register_size, registers_of
from chronovisor.machine.vcpu_state import VcpuState
from chronovisor.machine.wall_clock import as_datetime
from chronovisor.migration.snapshot_restore import Contents, inspect
from chronovisor.timebase.types import Ticks


def command(
    file: Annotated[str, typer.Argument(help="A snapshot.")],
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Show what is in a snapshot: its guest, its time and history, what its machine keeps, each vCPU's
    registers by name, and which memory is not all zeros. All of the file is read and checked.
    """
    contents = inspect(file)
    print(json.dumps(_as_json(contents), indent=2) if as_json else _shown(contents))


def _as_json(contents: Contents) -> dict[str, Any]:
    header, time, machine = contents.header, contents.time, contents.machine
    reading = time.reading
    return {
        "name": header.name,
        "memory": header.memory_size,
        "in_use": header.in_use,
        "vcpus": header.topology.vcpus,
        "threads": header.topology.threads,
        "pvr": header.pvr,
        "frequency": header.frequency,
        "dec_bits": header.dec_bits,
        "time": {
            "guest_tb": time.guest_time.value,
            "host_origin": time.origin,
            "stopped_before_ticks": time.stopped_before.value,
            "clock": reading.virtual or "real time",
            "ticks": reading.ticks,
            "boot": reading.boot,
            "boot_time_ns": list(reading.boot_time),
            "time_of_day_ns": list(reading.time_of_day),
        },
        "history": machine.history.as_json(),
        "machine": {
            "stopped": list(machine.stopped),
            "time_of_day": _date(contents).isoformat(),
            "typed": contents.typed.decode(errors="backslashreplace"),
            "random_state": bool(machine.random_state),
        },
        "registers": [_registers(vcpu) for vcpu in contents.vcpus],
        "memory_map": [{"address": addr, "size": size} for addr, size in contents.runs],
    }


def _shown(contents: Contents) -> str:
    header, time, machine = contents.header, contents.time, contents.machine
    reading, topology = time.reading, header.topology
    saved = as_datetime(Ticks.from_ns(reading.time_of_day.not_before))
    lines = [
        f"guest             {header.name}",
        f"memory            {header.memory_size >> 20} MiB, {header.in_use >> 10} KiB of it not zero",
        f"vCPUs             {topology.vcpus}, {topology.threads} to a virtual core",
        f"processor         {header.pvr:#010x}, decrementer of {header.dec_bits} bits",
        f"frequency         {header.frequency} Hz",
        f"saved             {saved:%Y-%m-%d %H:%M:%S} UTC by its machine",
        f"in boot           {reading.boot or 'unknown'}",
        f"clock             {reading.virtual or 'real time'}, host's origin {time.origin:#018x}",
        f"guest timebase    {time.guest_time.value:#018x}",
        f"time of day       {_date(contents):%Y-%m-%d %H:%M:%S.%f} UTC",
        f"typed, not read   {len(contents.typed)} bytes",
        "",
        life(machine.history.as_json()),
    ]
    for vcpu, stopped in zip(contents.vcpus, machine.stopped, strict=True):
        lines += ["", f"vCPU {vcpu.id}{' (stopped)' if stopped else ''}"]
        lines += [
            f"  {name:12} {value:#0{2 + 2 * register_size(name)}x}"
            for name, value in _registers(vcpu).items()
        ]
    lines += ["", "memory that is not zero"]
    lines += [f"  {addr:#018x}  {size:#x} bytes" for addr, size in contents.runs]
    return "\n".join(lines)


def _date(contents: Contents) -> datetime:
    return as_datetime(contents.machine.time_of_day.at(contents.time.guest_time))


def _registers(vcpu: VcpuState) -> dict[str, int]:
    """By KVM's names, as `reg` shows them; what is not carried is left out."""
    return {**registers_of(vcpu.regs, vcpu.sregs), **vcpu.one_regs, "DEC_EXPIRY": vcpu.dec_expiry}
