"""`chronovisor migrate`: move a guest to a waiting `receive`."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import Annotated, Any

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.cli.move_progress import as_lines, shown
from chronovisor.cli.move_record import table
from chronovisor.cli.move_request import Token, TokenFile, choose_token, write_request
from chronovisor.cli.output import say
from chronovisor.cli.protection import (
    Insecure,
    TlsCa,
    TlsCert,
    TlsCredentials,
    TlsKey,
    choose_credentials,
)
from chronovisor.cli.running import parse_seconds
from chronovisor.cli.time_options import (
    MAX_STEP_DEFAULT,
    TIME_HELP,
    ClockErrorLimit,
    MaxStep,
    parse_limit,
    parse_policy,
    step_note,
)
from chronovisor.machine.control import PATIENCE, ask
from chronovisor.machine.errors import MachineError
from chronovisor.machine.sizes import parse_bytes, parse_duration
from chronovisor.migration.precopy import MoveLimits
from chronovisor.migration.transfer import MoveReport


def command(
    name: GuestName,
    to: Annotated[
        str,
        typer.Argument(
            help="The address of a `receive`: tcp:HOST:PORT, tls:HOST:PORT or unix:PATH.", metavar="ADDRESS"
        ),
    ] = "",
    downtime_limit: Annotated[
        str,
        typer.Option(
            help="The guest is stopped when what is left takes no longer, at the rate so far.",
            metavar="DURATION",
        ),
    ] = f"{MoveLimits().downtime * 1000:g}ms",
    bandwidth_limit: Annotated[
        str,
        typer.Option(help="Bytes of memory a second while the guest runs: 100M, say.", metavar="BYTES"),
    ] = "",
    time: Annotated[str, typer.Option(help=TIME_HELP, metavar="POLICY")] = "catch-up",
    max_step: MaxStep = MAX_STEP_DEFAULT,
    clock_error_limit: ClockErrorLimit = "",
    cooperative: Annotated[
        bool,
        typer.Option(
            "--cooperative",
            help="Ask a Linux guest to suspend itself for the move, which resets its watchdogs. Somebody in "
            "the guest has to write the number that is shown to /sys/kernel/mobility/migration.",
        ),
    ] = False,
    suspend_limit: Annotated[
        str,
        typer.Option(
            help="With --cooperative: the seconds that the guest may take once its memory has been sent.",
            metavar="SECONDS",
            show_default="60",
        ),
    ] = "",
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel the move under way; the guest goes on here.")
    ] = False,
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Ask the destination what became of an undecided move.")
    ] = False,
    force_resume: Annotated[
        bool,
        typer.Option("--force-resume", help="Your word that the guest does not run there: it goes on here."),
    ] = False,
    time_limit: Annotated[
        str,
        typer.Option(
            help="Seconds of silence after which the destination is lost.",
            metavar="SECONDS",
            show_default="10",
        ),
    ] = "",
    tls_credentials: TlsCredentials = "",
    tls_ca: TlsCa = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    tls_hostname: Annotated[
        str,
        typer.Option(
            help="For tls: whom the destination's certificate has to be for, if not the host in ADDRESS.",
            metavar="NAME",
        ),
    ] = "",
    insecure: Insecure = False,
    token: Token = "",
    token_file: TokenFile = "",
    progress: Annotated[
        bool, typer.Option("--progress", help="With --json: a line of JSON now and then, before the answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Move a guest to another process, and print what that did to its time. A paused guest arrives paused.

    Memory is sent while the guest runs, in rounds, until what is left fits the downtime limit (the last round
    is not held back by a bandwidth limit). A guest that writes faster than that goes on here.

    Status 1 says that the guest did not move and continues here. Status 5 says that it is undecided: the
    destination was lost when it may already have had the guest, so the guest is paused here. Ask again with
    --resolve, or take the guest back with --force-resume.
    """
    if bool(to) + cancel + resolve + force_resume != 1:
        raise MachineError(f"migrate {name}: say one of ADDRESS, --cancel, --resolve and --force-resume")
    request: dict[str, Any] = {"cancel": cancel, "resolve": resolve, "force_resume": force_resume}
    if to:
        credentials = choose_credentials(tls_credentials, tls_ca, tls_cert, tls_key, "client")
        if credentials is not None:
            credentials = replace(credentials, peer=tls_hostname)
        stream = secrets.randbits(63) if cooperative else None
        request |= write_request(
            to,
            insecure,
            credentials,
            parse_seconds(time_limit, "time limit"),
            parse_duration(downtime_limit, "downtime limit").ns / 1e9,
            parse_bytes(bandwidth_limit, "bandwidth limit") if bandwidth_limit else None,
            parse_limit(clock_error_limit),
            parse_policy(time, max_step),
            choose_token(token, token_file),
            stream,
            parse_seconds(suspend_limit, "suspend limit"),
        )
        if stream is not None:
            # A guest that is not here is refused before anybody is told to write in it.
            ask(name, "ps", timeout=PATIENCE)
            say(f"write {stream:#x} to /sys/kernel/mobility/migration in {name}")
    try:
        with as_lines() if as_json and progress else shown(not as_json) as hear:
            answer = ask(name, "migrate", hear=hear, **request)
    except KeyboardInterrupt:
        if to:
            say(f"the move of {name} goes on; `chronovisor migrate {name} --cancel` cancels it")
        raise
    for done, told in (
        ("resumed", f"{name} goes on here; move {answer.get('resumed')} is forgotten"),
        ("cancelled", f"{name} goes on here; move {answer.get('cancelled')} was cancelled"),
    ):
        if done in answer:
            print(json.dumps({done: name, "move": answer[done]}) if as_json else told)
            return
    report = MoveReport.from_json(answer["report"])
    print(json.dumps(report.as_json(), indent=None if progress else 2) if as_json else table(report))
    note = step_note(report.record.elapsed_ticks, report.record.counted_ticks, time, max_step)
    if note is not None:
        say(f"{name}: {note}")
