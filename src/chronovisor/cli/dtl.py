"""`chronovisor dtl`: dispatch trace logs, of running guests and out of files."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from chronovisor.cli.guest_name import running_guests
from chronovisor.cli.output import say
from chronovisor.cli.running import parse_seconds
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.control import PATIENCE, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.files import LARGEST, FileError, open_regular
from chronovisor.machine.sizes import parse_u64
from chronovisor.papr.dispatch_log import (
    DispatchLog,
    LogFormatError,
    from_ring,
    from_ring_alone,
    from_stream,
    problem,
)
from chronovisor.papr.vpa import DTL_ENTRY_SIZE, VPA_DTL_INDEX
from chronovisor.report.dispatch_log import VcpuLog, as_csv, as_json, table
from chronovisor.timebase.types import FREQUENCY

_PIECE: Final = 1024 * DTL_ENTRY_SIZE
"""Linux's log files take reads of whole entries alone."""
_PAUSE: Final = 0.05
"""Seconds between two looks whether a log file has more."""


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, or else the name of a running guest.",
            metavar="FILE|NAME",
            autocompletion=running_guests,
        ),
    ],
    vcpu: Annotated[
        int | None, typer.Option(help="Of a guest: this vCPU's log alone.", metavar="N", min=0)
    ] = None,
    address: Annotated[
        str, typer.Option(help="The file is a memory dump, and the log begins at this byte.")
    ] = "",
    length: Annotated[str, typer.Option(help="How many bytes the log in the dump has.")] = "",
    vpa: Annotated[
        str,
        typer.Option(
            help="The address in the dump of the virtual processor area, which says what was written."
        ),
    ] = "",
    frequency: Annotated[
        int | None, typer.Option(help="Of a file: the timebase's ticks per second.", min=1)
    ] = None,
    seconds: Annotated[
        str, typer.Option(help="Of a log file of Linux: go on reading for so long.", metavar="SECONDS")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Show also what cannot be right.")] = False,
    as_csv_: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Show the dispatch trace log: when each vCPU was dispatched, why, and how long it had waited for what.

    FILE is a raw log as Linux has it in debugfs, powerpc/dtl/cpu-N (which Linux fills only while a program
    reads it: --seconds), or with --address and --length a memory dump that has the log somewhere in it. A
    file of a guest's name is written ./NAME. Timebases are the guest's. Waiting: from the preemption until
    there was something to run for; ready: until it was queued for a core; enqueued: until it was dispatched.
    """
    if as_csv_ and as_json_:
        raise MachineError("choose one of --csv and --json")
    options = {
        "--address": address,
        "--length": length,
        "--vpa": vpa,
        "--frequency": frequency,
        "--seconds": seconds,
    }
    path = Path(source)
    if path.exists() or "/" in source:
        if vcpu is not None:
            raise MachineError("--vcpu is for a running guest: a file has one log")
        if not address and (length or vpa):
            raise MachineError(
                "--length and --vpa are for a memory dump: give its log's address by --address"
            )
        log = _dumped(path, address, length, vpa) if address else _listed(path, seconds)
        logs, ticks_a_second = [VcpuLog(None, log)], frequency or FREQUENCY
    else:
        for option, given in options.items():
            if given:
                raise MachineError(f"{option} is for files, and there is no file {source}")
        logs, ticks_a_second = _running(source, vcpu)
    wrong = next(filter(None, (problem(one.log) for one in logs)), None)
    if wrong and not force:
        raise MachineError(f"{source}: {wrong} (--force shows it nevertheless)")
    if as_json_:
        print(json.dumps(as_json(logs, ticks_a_second), indent=2))
    elif as_csv_:
        sys.stdout.write(as_csv(logs, ticks_a_second))
    else:
        print("\n".join(table(logs, ticks_a_second)))
    if wrong:
        say(f"{source}: {wrong}")
        return ExitStatus.FAILED
    return ExitStatus.OK


def _running(name: str, vcpu: int | None) -> tuple[list[VcpuLog], int]:
    """Ask a guest's process for its logs; return them and the guest's timebase frequency."""
    known = ask(name, "dtl", PATIENCE, vcpu=None)
    if vcpu is None and not known["vcpus"]:
        raise MachineError(f"{name}: no vCPU has registered a dispatch trace log")
    asked = known["vcpus"] if vcpu is None else [vcpu]
    return [VcpuLog(number, _asked(name, number)) for number in asked], known["frequency"]


def _asked(name: str, vcpu: int) -> DispatchLog:
    """Ask for one log, in as many parts as it takes: each has to fit a line."""
    first, data, end = 0, b"", None
    while end is None or first + len(data) // DTL_ENTRY_SIZE < end:
        start = first + len(data) // DTL_ENTRY_SIZE
        part = ask(name, "dtl", PATIENCE, vcpu=vcpu, start=start)
        if part["first"] != start:
            # What came before is overwritten by now, or the log is a new one.
            first, data = part["first"], b""
        data += base64.b64decode(part["entries"])
        end = part["end"] if end is None else min(end, part["end"])
    return DispatchLog(from_stream(data).entries, first)


def _listed(path: Path, seconds: str) -> DispatchLog:
    """Read a log file of Linux, or a copy of one."""
    until = time.monotonic() + (parse_seconds(seconds, "seconds") or 0)
    data = bytearray()
    try:
        with open_regular(path) as file:
            while True:
                # A buffer would read parts of entries, which Linux refuses.
                piece = os.read(file.fileno(), _PIECE)
                data += piece
                if len(data) > LARGEST:
                    raise MachineError(f"{path}: the log has more than {LARGEST} bytes")
                if not piece:
                    if time.monotonic() >= until:
                        break
                    time.sleep(_PAUSE)
        log = from_stream(bytes(data))
    except OSError as error:
        raise MachineError(f"{path}: {error.strerror or error}") from None
    except (FileError, LogFormatError) as error:
        raise MachineError(f"{path}: {error}") from None
    if not log.entries:
        raise MachineError(f"{path}: the file is empty: nothing was logged in it")
    return log


def _dumped(path: Path, address: str, length: str, vpa: str) -> DispatchLog:
    """Find the log in a memory dump."""
    if not length:
        raise MachineError("--address also needs --length: how many bytes the log has")
    try:
        with open_regular(path) as file:
            ring = _piece(file, path, parse_u64(address, "address"), parse_u64(length, "length"), "the log")
            if not vpa:
                return from_ring_alone(ring)
            field, at = VPA_DTL_INDEX, parse_u64(vpa, "virtual processor area")
            index = field.unpack(
                _piece(file, path, at + field.offset, field.size, "the virtual processor area")
            )
            return from_ring(ring, index)
    except OSError as error:
        raise MachineError(f"{path}: {error.strerror or error}") from None
    except (FileError, LogFormatError) as error:
        raise MachineError(f"{path}: {error}") from None


def _piece(file: BinaryIO, path: Path, at: int, size: int, what: str) -> bytes:
    """Return `size` bytes at `at`; MachineError if the file has fewer."""
    there = file.seek(0, os.SEEK_END)
    if at + size > there:
        raise MachineError(f"{path}: {what} would end at {at + size:#x}, but the file has {there:#x} bytes")
    file.seek(at)
    return file.read(size)
