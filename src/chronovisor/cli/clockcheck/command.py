"""`chronovisor clockcheck`: reads a guest's console and reports what its clocks do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from chronovisor.cli.clockcheck.guest_half import ARCHITECTURES, initramfs, program, write
from chronovisor.cli.clockcheck.source import Log, Source, opened
from chronovisor.cli.output import say
from chronovisor.cli.running import parse_seconds
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import MachineError
from chronovisor.report.clock_check import ClockCheck, Limits, Report
from chronovisor.report.clock_check.table import tables

_AFTER_BYE: Final = 1.0
"""Seconds for which the console is still read once the guest's half is done."""
_AFTER_BYE_OF_COMMAND: Final = 20.0
"""The same if this command started the guest: it is to power off."""
_USUAL: Final = Limits()


def command(
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="A log file, a pipe or terminal, tcp:HOST:PORT, unix:PATH, or - for the standard input; "
            "after --, a command to run.",
            metavar="SOURCE | -- COMMAND...",
        ),
    ] = None,
    seconds: Annotated[str, typer.Option(help="Stop after so long.", metavar="SECONDS")] = "",
    step: Annotated[
        float, typer.Option(help="The smallest step to look for, in milliseconds.", min=0.001)
    ] = _USUAL.step / 1e6,
    rate: Annotated[
        float, typer.Option(help="A clock's rate may differ from the host's by so many ppm.", min=0.0)
    ] = _USUAL.rate_ppm,
    late: Annotated[
        float, typer.Option(help="A timer may be late by so many milliseconds.", min=0.0)
    ] = _USUAL.late / 1e6,
    silence: Annotated[float, typer.Option(help="So many seconds may pass without a line.", min=0.001)] = (
        _USUAL.silence / 1e9
    ),
    allowance: Annotated[
        float,
        typer.Option(
            help="By how many milliseconds the quickest way of a line from the guest may vary.", min=0.0
        ),
    ] = _USUAL.allowance / 1e6,
    log: Annotated[
        Path | None, typer.Option(help="Keep the console in this file, with times, for a later check.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the clocks into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    program_: Annotated[
        Path | None, typer.Option("--program", help="Write the guest's half to this file, and stop.")
    ] = None,
    initramfs_: Annotated[
        Path | None,
        typer.Option("--initramfs", help="Write an initramfs that holds the guest's half alone, and stop."),
    ] = None,
    arch: Annotated[
        str, typer.Option(help=f"For --program and --initramfs: {', '.join(ARCHITECTURES)}.")
    ] = "ppc64le",
) -> int:
    """Check the clocks of a Linux guest, on any hypervisor. Read the console on which the guest's half
    prints, compare each line with this machine's monotonic clock, and report rates, steps, clocks that went
    back or disagree, timers early, late or lost, and what the guest's kernel complains of.

    The guest's half is a small static program. It runs as a process (clockcheck seconds=60) or as init
    (clockcheck.seconds=60 on the kernel's command line). Ctrl-C ends the check and prints the report.

    Status 1 says that there was nothing to check, or that the guest ended early.
    """
    if program_ is not None or initramfs_ is not None:
        if source:
            raise MachineError("--program and --initramfs write a file and read no console")
        if program_ is not None:
            write(program_, program(arch), executable=True)
        if initramfs_ is not None:
            write(initramfs_, initramfs(arch))
        return ExitStatus.OK
    if not source:
        raise MachineError("say where the console is: a SOURCE, or -- and a command that runs the guest")
    if picture is not None and not picture.resolve().parent.is_dir():
        raise MachineError(f"the picture cannot be written to {picture}: there is no such directory")
    limits = Limits(
        step=round(step * 1e6),
        rate_ppm=rate,
        late=round(late * 1e6),
        silence=round(silence * 1e9),
        allowance=round(allowance * 1e6),
    )
    check = ClockCheck(limits)
    ended_early = _read(source, check, parse_seconds(seconds, "seconds"), log)
    report = check.report()
    _print(report, as_json)
    if picture is not None:
        _draw(report, picture)
    if not report.samples:
        say("the console has no sample of the guest's half: does the guest run clockcheck?")
        return ExitStatus.FAILED
    if report.faults:
        return ExitStatus.CLOCK_FAULT
    return ExitStatus.FAILED if ended_early else ExitStatus.OK


def _read(words: Sequence[str], check: ClockCheck, limit: float | None, log: Path | None) -> bool:
    """Read the console to its end; return whether the guest ended before it was done."""
    keeping = contextlib.nullcontext() if log is None else Log(log)
    with keeping as keep, opened(words) as source:
        until = None if limit is None else time.monotonic() + limit
        with contextlib.suppress(KeyboardInterrupt):
            _check_lines(source, check, until, keep)
        if source.process is None or not source.ended or check.finished:
            return False
    say(f"{source.name} ended with status {source.process.returncode} before the guest's half was done")
    return True


def _check_lines(source: Source, check: ClockCheck, until: float | None, keep: Log | None) -> None:
    def time_left() -> float | None:
        return None if until is None else until - time.monotonic()

    leaving = False
    for line in source.lines(time_left):
        if keep is not None:
            keep.write(line)
        check.line(*line)
        if check.finished and not leaving and not source.is_log:
            leaving = True
            patience = _AFTER_BYE if source.process is None else _AFTER_BYE_OF_COMMAND
            end = time.monotonic() + patience
            until = end if until is None else min(until, end)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    for part in tables(report):
        console.print(part)


def _draw(report: Report, path: Path) -> None:
    try:
        from chronovisor.report.clock_check.picture import draw

        draw(report, path)
    except ModuleNotFoundError as error:
        raise MachineError(f"no picture: the package {error.name} is not installed") from None
    except (OSError, ValueError) as error:
        raise MachineError(f"the picture cannot be written to {path}: {error}") from None
