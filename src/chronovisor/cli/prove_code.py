"""`chronovisor prove --code`: a claim about the timebase, proven of machine code in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chronovisor.cli.output import show
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import ImageError, MachineError
from chronovisor.machine.files import FileError, find_image, read_regular

if TYPE_CHECKING:
    from chronovisor.proof.code.claim import CodeClaim, CodeFinding
    from chronovisor.proof.code.image import CodeImage

CodeFile = Annotated[
    Path | None,
    typer.Option("--code", help="Prove machine code instead: an ELF file for 64-bit Power."),
]
From = Annotated[
    str | None, typer.Option("--from", help="With --code: the first instruction, SYMBOL[+OFFSET] or address.")
]
To = Annotated[
    str | None,
    typer.Option("--to", help="With --code: the end of the range, which excludes this instruction."),
]
Property = Annotated[
    str | None,
    typer.Option(
        "--property",
        help="With --code: timebase-add=PLACE or timebase-subtract=PLACE. A PLACE is a register, as r8, or a "
        "doubleword in memory, as 168(r5), with the register's value at the start of the range.",
    ),
]
Keeps = Annotated[
    list[str] | None,
    typer.Option("--keeps", help="With --code: a PLACE that at the end holds the new time. May be repeated."),
]
Remembers = Annotated[
    str | None,
    typer.Option("--remembers", help="With --code: a PLACE that at the end holds what was added."),
]
Assume = Annotated[
    list[str] | None,
    typer.Option(
        "--assume",
        help="With --code: PLACE [& MASK] = NUMBER (or != < <= > >=), age(PLACE) <= TICKS, steady(WORD) or "
        "apart(WORD, WORD, …). May be repeated.",
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", min=1, max=1 << 48, help="With --code: fewer ticks than these pass.")
]

_SHIFTS = {"timebase-add": False, "timebase-subtract": True}


def prove_code(
    file: Path,
    start: str | None,
    end: str | None,
    claimed: str | None,
    keeps: Sequence[str],
    remembers: str | None,
    assume: Sequence[str],
    limit: int,
    timeout: float,
    as_json: bool,
) -> int:
    """Prove one claim about the code in `file` and print the result. Return the exit status."""
    from chronovisor.proof.code.assumptions import AssumptionError
    from chronovisor.proof.code.image import CodeError, PlaceError, parse_code
    from chronovisor.proof.code.properties import prove_code as prove
    from chronovisor.proof.prover import Outcome

    try:
        path = find_image(file)
        image = parse_code(read_regular(path), str(path))
        claim = _claim(image, start, end, claimed, keeps, remembers, assume, limit)
    except (PlaceError, AssumptionError) as error:
        raise MachineError(str(error)) from None
    except FileError as error:
        raise ImageError(f"{file}: {error}") from None
    except CodeError as error:
        raise ImageError(str(error)) from None
    finding = prove(image, claim, timeout)
    beyond = None
    if finding.outcome is Outcome.PROVEN:
        beyond = prove(image, replace(claim, limit=claim.limit + 1), timeout)
    if as_json:
        print(json.dumps(_as_json(image, finding, beyond), indent=2))
    else:
        _print(image, finding, beyond)
    return ExitStatus.OK if finding.outcome is Outcome.PROVEN else ExitStatus.FAILED


def _claim(
    image: CodeImage,
    start: str | None,
    end: str | None,
    claimed: str | None,
    keeps: Sequence[str],
    remembers: str | None,
    assume: Sequence[str],
    limit: int,
) -> CodeClaim:
    from chronovisor.proof.code.assumptions import parse_assumption, parse_place
    from chronovisor.proof.code.claim import CodeClaim

    for given, option in ((start, "--from"), (end, "--to"), (claimed, "--property")):
        if given is None:
            raise MachineError(f"--code also needs {option}")
    assert start is not None
    assert end is not None
    assert claimed is not None
    name, _, place = claimed.partition("=")
    if name not in _SHIFTS:
        raise MachineError(
            f"{claimed!r} is not a property: give timebase-add=PLACE or timebase-subtract=PLACE"
        )
    first, last = image.address_of(start), image.address_of(end)
    if last <= first:
        raise MachineError(f"the range runs backwards: {start} is {first:#x}, {end} is {last:#x}")
    section = image.section_at(first)
    if section is None or last > section.end:
        raise MachineError(
            f"the range from {start} to {end} leaves its section"
            f"{f' {section.name}, which ends at {section.end:#x}' if section is not None else ''}"
        )
    return CodeClaim(
        first,
        last,
        parse_place(place),
        _SHIFTS[name],
        tuple(map(parse_place, keeps)),
        None if remembers is None else parse_place(remembers),
        tuple(map(parse_assumption, assume)),
        limit,
    )


def _print(image: CodeImage, finding: CodeFinding, beyond: CodeFinding | None) -> None:
    from chronovisor.proof.code.story import assumed, story
    from chronovisor.proof.prover import Outcome

    claim = finding.claim
    order = "little" if image.little else "big"
    show(
        f"{image.name}: {image.place(claim.start)} up to {image.place(claim.end)}, {finding.instructions} "
        f"instructions, {order}-endian"
    )
    for heading, lines in (("claimed", claim.words), ("assumed", assumed(finding))):
        show(f"{heading}:")
        for line in lines:
            show(f"  {line}")
    if finding.stores:
        show(f"it stores to {', '.join(finding.stores)}")
    for line in story(image, finding):
        show(line)
    show(f"{said(finding)}, in {finding.seconds:.1f} s")
    if beyond is not None and beyond.outcome is Outcome.REFUTED:
        show("the limit is tight: with one tick more it is refuted")
    elif beyond is not None:
        show(f"with a limit of one tick more it is also {beyond.outcome.value}")


def said(finding: CodeFinding) -> str:
    """Return the outcome of a claim, in one line."""
    from chronovisor.proof.prover import Outcome

    if finding.outcome is Outcome.REFUTED:
        return f"refuted: not so: {finding.requirement}"
    if finding.outcome is Outcome.UNDECIDED:
        return f"undecided: {finding.limit}"
    if finding.outcome is Outcome.VACUOUS:
        return "it says nothing: the assumptions contradict each other, or the code never reaches the end"
    return str(finding.outcome.value)


def _as_json(image: CodeImage, finding: CodeFinding, beyond: CodeFinding | None) -> dict[str, object]:
    from chronovisor.proof.code.story import as_json

    return {
        "file": image.name,
        "byte_order": "little" if image.little else "big",
        **as_json(image, finding),
        "one_tick_longer": None if beyond is None else beyond.outcome.value,
    }
