"""`chronovisor prove`: prove the promises about time, over the code that runs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chronovisor.cli.prove_code import (
    Assume,
    CodeFile,
    From,
    Keeps,
    Limit,
    Property,
    Remembers,
    To,
    prove_code,
)
from chronovisor.cli.status import ExitStatus
from chronovisor.timebase.types import GRANULE

if TYPE_CHECKING:
    from chronovisor.proof.prover import Counterexample, Finding, Verdict


LONGEST_TIMEOUT = 86_400
"""A day."""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds for each claim, and for each of its limits.")
    ] = 60.0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that prove side by side; one for each processor if not given."),
    ] = None,
    code: CodeFile = None,
    start: From = None,
    end: To = None,
    claimed: Property = None,
    keeps: Keeps = None,
    remembers: Remembers = None,
    assume: Assume = None,
    limit: Limit = GRANULE,
) -> int:
    """Prove the promises about a guest's time, over the very code that runs, for every timebase, every offset
    and every timing within the assumptions that are shown. Status 1 says that something is refuted,
    undecided, or not tight (one tick past its limit there is no counterexample).

    With --code, prove machine code in a file, from --from up to --to: for every timebase, and however many
    ticks pass between two instructions, it shifts the timebase by exactly what --property names. A
    counterexample is told step by step.
    """
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise typer.BadParameter(
            f"a time-out is a number of seconds, greater than 0 and at most {LONGEST_TIMEOUT}",
            param_hint="--timeout",
        )
    if code is None and (given := [start, end, claimed, keeps, remembers, assume]) != [None] * len(given):
        raise typer.BadParameter(
            "only machine code has a range, a property and assumptions: give --code FILE"
        )
    try:
        if code is not None:
            return prove_code(
                code, start, end, claimed, keeps or (), remembers, assume or (), limit, timeout, as_json
            )
        from chronovisor.proof.claims import CLAIMS, prove_all
    except ModuleNotFoundError as error:
        if error.name != "z3":
            raise
        print(
            "chronovisor prove: the prover z3 is not installed (there is none for Power hosts): "
            "install z3-solver on another machine and prove there",
            file=sys.stderr,
        )
        return ExitStatus.FAILED
    from rich.console import Console

    told = Console(stderr=True)
    begun = time.monotonic()
    verdicts = []
    with told.status("") as status:
        proving = prove_all(timeout, jobs)
        for number, claim in enumerate(CLAIMS, 1):
            status.update(f"{number} of {len(CLAIMS)}: {claim.words}")
            verdicts.append(next(proving))
    seconds = time.monotonic() - begun
    proven = all(verdict.holds for verdict in verdicts)
    if as_json:
        print(json.dumps(_as_json(verdicts, proven, seconds), indent=2))
    else:
        _print(Console(), verdicts, seconds)
    return ExitStatus.OK if proven else ExitStatus.FAILED


def _print(console: Any, verdicts: list[Verdict], seconds: float) -> None:
    from rich.table import Table

    assumptions = list(dict.fromkeys(words for v in verdicts for words in v.finding.assumptions))
    table = Table()
    table.add_column("promise")
    table.add_column("what is claimed", ratio=1)
    table.add_column("assumed", justify="right")
    table.add_column("outcome")
    table.add_column("tight")
    table.add_column("s", justify="right")
    for verdict in verdicts:
        table.add_row(
            verdict.claim.promise,
            verdict.claim.words,
            " ".join(chr(ord("a") + assumptions.index(words)) for words in verdict.finding.assumptions),
            verdict.outcome.value,
            ("yes" if verdict.is_tight else "NO") if verdict.tight else "",
            f"{verdict.seconds:.1f}",
        )
    console.print(table)
    console.print("Assumed:")
    for number, words in enumerate(assumptions):
        console.print(f"  {chr(ord('a') + number)}  {words}", highlight=False)
    for verdict in verdicts:
        for line in _troubles(verdict):
            console.print(line, style="bold red", highlight=False)
        if verdict.finding.counterexample is not None:
            for line in _retold(verdict.claim.name, verdict.finding.counterexample):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    held = sum(verdict.holds for verdict in verdicts)
    console.print(f"{held} of {len(verdicts)} claims proven, in {seconds:.1f} s", highlight=False)


def _troubles(verdict: Verdict) -> list[str]:
    name, finding = verdict.claim.name, verdict.finding
    found = []
    if finding.counterexample is not None:
        found.append(f"{name} is refuted: {_told(finding.counterexample)}")
    elif finding.limit is not None:
        found.append(f"{name} is undecided: {finding.limit}")
    elif not verdict.outcome.is_pass:
        found.append(f"{name} says nothing: its assumptions never hold together")
    found += [
        f"{name} is not shown to be tight: {tight.words}: {companion.limit or companion.outcome.value}"
        for tight, companion in zip(verdict.claim.tight, verdict.tight, strict=True)
        if companion.counterexample is None
    ]
    return found


def _told(counterexample: Counterexample) -> str:
    values = ", ".join(f"{name} = {value:#x}" for name, value in counterexample.values.items())
    return f"not so: {counterexample.requirement}. With {values}"


def _retold(name: str, counterexample: Counterexample) -> list[str]:
    """The counterexample step by step, and as a test that fails while it is one."""
    return [
        *(f"  {line}" for line in counterexample.story),
        "as a test case:",
        *(f"  {line}" for line in as_test(name, counterexample.values).splitlines()),
    ]


def as_test(name: str, values: dict[str, int]) -> str:
    """Return the source of a test that runs a case of the claim `name` on ints. The test fails if the case
    breaks the claim.
    """
    listed = "".join(f"        {json.dumps(unknown)}: {value:#x},\n" for unknown, value in values.items())
    return (
        "from chronovisor.proof.claims import claim\n"
        "from chronovisor.proof.paths import replay\n\n\n"
        f"def test_{name.replace('-', '_')}() -> None:\n"
        f"    case = {{\n{listed}    }}\n"
        f'    assert replay(claim("{name}").body, case) is None\n'
    )


def _as_json(verdicts: list[Verdict], proven: bool, seconds: float) -> dict[str, Any]:
    return {
        "claims": [
            {
                "name": verdict.claim.name,
                "promise": verdict.claim.promise,
                "claim": verdict.claim.words,
                **_found(verdict.finding),
                "tight": [
                    {"limit_moved": tight.words, **_found(companion)}
                    for tight, companion in zip(verdict.claim.tight, verdict.tight, strict=True)
                ],
                "holds": verdict.holds,
            }
            for verdict in verdicts
        ],
        "seconds": round(seconds, 2),
        "verdict": "proven" if proven else "not proven",
    }


def _found(finding: Finding) -> dict[str, Any]:
    counterexample = finding.counterexample
    return {
        "assumptions": list(finding.assumptions),
        "outcome": finding.outcome.value,
        "paths": finding.paths,
        "seconds": round(finding.seconds, 2),
        "limit": finding.limit,
        "counterexample": None
        if counterexample is None
        else {
            "not_so": counterexample.requirement,
            "values": counterexample.values,
            "story": list(counterexample.story),
        },
    }
