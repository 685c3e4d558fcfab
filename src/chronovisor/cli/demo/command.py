"""The command: plays the acts, shows what each found, and ends with whether all of it is as it should be."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from chronovisor.cli.debian import CACHE
from chronovisor.cli.demo import move, register, sabotage, switch
from chronovisor.cli.demo.far_side import FarSideError
from chronovisor.cli.demo.findings import Act, Check, Json
from chronovisor.cli.demo.linux import act as linux
from chronovisor.cli.demo.travel import Travel, in_virtual_time
from chronovisor.cli.demo.two_processes import TwoProcesses
from chronovisor.cli.demo.watched import SilentGuestError
from chronovisor.cli.host_options import Clock
from chronovisor.cli.output import say
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import MachineError
from chronovisor.migration.errors import MoveError, MoveUndecidedError
from chronovisor.report.picture import draw
from chronovisor.timebase.handover import CLOCK_ERROR_LIMIT

WIDTH = 100
PICTURE = Path("chronovisor-demo.png")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    picture: Annotated[Path, typer.Option(help="Where to put the picture of the moves.")] = PICTURE,
    seed: Annotated[
        int, typer.Option(help="What is drawn by lot (origins, delays) is the same for the same number.")
    ] = 1,
    clock: Annotated[
        Clock,
        typer.Option(
            help="Of the moves. real: this machine's, over TCP between two processes; "
            "virtual: in one process, the same each time, to the tick."
        ),
    ] = Clock.real,
    with_linux: Annotated[
        bool, typer.Option("--linux/--no-linux", help="Play the fifth act: Debian's kernel, fetched by apt.")
    ] = True,
    packages: Annotated[Path, typer.Option(help="Where Debian's packages are kept.")] = CACHE,
) -> int:
    """See the timebase offset happen, in five acts: the register, the switch, the move, sabotage, Linux."""
    if not picture.resolve().parent.is_dir():
        raise MachineError(f"the picture cannot be written to {picture}: there is no such directory")
    stage, chance = _Stage(as_json), random.Random(seed)
    virtual = clock is Clock.virtual

    def play_linux() -> Act:
        return linux.play(chance, packages, picture.with_stem(f"{picture.stem}-linux"), virtual)

    last = play_linux if with_linux else None
    try:
        if virtual:
            return _play(stage, picture, chance, in_virtual_time, last)
        with TwoProcesses() as both:
            return _play(stage, picture, chance, both.travel, last)
    except (FarSideError, MoveError, MoveUndecidedError, SilentGuestError) as error:
        say(f"the demonstration came to a halt: {' '.join(str(error).split())}")
        return ExitStatus.FAILED


def _play(
    stage: _Stage,
    picture: Path,
    chance: random.Random,
    travel: Travel,
    play_linux: Callable[[], Act] | None,
) -> ExitStatus:
    begun = time.monotonic()
    stage.say(
        "Chronovisor: Power guests keep their own time",
        "Each line says what was seen in this run, and quotes the clause of the original text that it shows.",
    )
    acts = [stage.show(register.play(chance.getrandbits(60)))]
    switched, origin = switch.play(chance.getrandbits(60))
    acts.append(stage.show(switched))
    moved, travelled = move.play(chance, travel)
    stage.show(moved)
    with _written(picture):
        draw(travelled.journey, picture, CLOCK_ERROR_LIMIT)
    stage.say("", f"  picture: {picture.resolve()}")
    broken = stage.show(sabotage.play(origin))
    acts += [moved, broken]
    told: dict[str, Json] = {}
    if play_linux is not None:
        stage.say("", "\n  Debian's kernel boots, moves, and boots again on QEMU: under a minute")
        with _written(picture):
            acts.append(stage.show(play_linux()))
        told = acts[-1].json

    ok = all(act.ok for act in acts)
    report = travelled.report
    stage.finish(
        {
            "register": acts[0].json,
            "switch": acts[1].json,
            "hops": moved.json["hops"],
            "sabotage": broken.json["sabotage"],
            "backward_steps": report.backward_steps,
            "largest_step_ticks": report["largest_step"],
            "decrementer": {name: report[name] for name in ("expected", "taken", "lost")},
            **told,
            "checks": [check for act in acts for check in act.as_json()],
            "picture": str(picture.resolve()),
            "verdict": "ok" if ok else "failed",
        },
        acts,
        time.monotonic() - begun,
    )
    return ExitStatus.OK if ok else ExitStatus.FAILED


@contextlib.contextmanager
def _written(picture: Path) -> Iterator[None]:
    """Have a picture that cannot be written named in a line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise MachineError(f"the picture cannot be written to {picture}: {error}") from None


class _Stage:
    """Shows the acts: on the terminal one by one, or as one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._acts = 0
        terminal = sys.stdout.isatty()
        # Piped, the lines have one length, and nothing but text is in them.
        self._console = Console(
            highlight=False, width=None if terminal else WIDTH, quiet=as_json, soft_wrap=False
        )

    def say(self, title: str, text: str) -> None:
        if title:
            self._console.print(Text(title, style="bold"))
        self._console.print(text, style="dim")

    def show(self, act: Act) -> Act:
        self._acts += 1
        self._console.print()
        self._console.rule(Text(f"{self._acts}. {act.title}", style="bold"), align="left", style="dim")
        for thing in act.shown:
            self._console.print(thing, no_wrap=True, crop=False, overflow="ignore")
        for check in act.checks:
            self._show_check(check)
        return act

    def _show_check(self, check: Check) -> None:
        clause = f"beyond the text: {check.clause}" if check.beyond else f"“{check.clause}”"
        mark = ("✓", "green") if check.ok else ("✗", "bold red")
        seen = self._indented(check.seen).lstrip()
        self._console.print(Text.assemble(mark, "  ", seen, "\n", (self._indented(clause), "dim italic")))

    def _indented(self, text: str) -> str:
        return fill(text, min(self._console.width, WIDTH), initial_indent="   ", subsequent_indent="   ")

    def finish(self, result: dict[str, Json], acts: list[Act], seconds: float) -> None:
        if self._as_json:
            print(json.dumps(result, indent=2, ensure_ascii=False))
            return
        checks = [check for act in acts for check in act.checks]
        wrong = [check for check in checks if not check.ok]
        self._console.print()
        if wrong or not all(act.ok for act in acts):
            self._console.print(
                Text(f"{len(wrong)} of {len(checks)} are not as they should be.", style="bold red")
            )
        else:
            self._console.print(
                Text(f"All {len(checks)} are as they should be ({seconds:.0f} s).", style="bold green")
            )
