"""`chronovisor migrate`: move a running guest to where `receive` waits for one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.cli.move_record import table
from chronovisor.cli.running import parse_seconds
from chronovisor.machine.control import ask
from chronovisor.machine.errors import MachineError
from chronovisor.migration.address import parse_address
from chronovisor.migration.transfer import MoveReport


def command(
    name: Annotated[str, typer.Argument(help="The guest, as `ps` lists it.")],
    to: Annotated[str, typer.Argument(help="Where `receive` waits: tcp:HOST:PORT.", metavar="ADDRESS")] = "",
    resolve: Annotated[
        bool, typer.Option("--resolve", help="Ask the destination what became of an undecided move.")
    ] = False,
    force_resume: Annotated[
        bool,
        typer.Option("--force-resume", help="Your word that the guest does not run there: it goes on here."),
    ] = False,
    time_limit: Annotated[
        str, typer.Option(help="Seconds of silence after which the destination is lost.", metavar="SECONDS")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Move a running guest to another process, and print what that did to its time.

    Exit status: 0 it went, 1 it did not and goes on, 2 bad usage, 5 undecided: it is paused, as its
    destination was lost after it may have been given away. Ask again with --resolve,
    or take it back with --force-resume.
    """
    if bool(to) + resolve + force_resume != 1:
        raise MachineError(f"migrate {name}: say one of ADDRESS, --resolve and --force-resume")
    answer = ask(
        name,
        "migrate",
        to=str(parse_address(to)) if to else "",
        resolve=resolve,
        force_resume=force_resume,
        time_limit=parse_seconds(time_limit, "time limit"),
    )
    if "resumed" in answer:
        done = {"resumed": name, "move": answer["resumed"]}
        print(json.dumps(done) if as_json else f"{name} goes on here; move {answer['resumed']} is forgotten")
        return
    report = MoveReport.from_json(answer["report"])
    print(json.dumps(report.as_json(), indent=2) if as_json else table(report))
