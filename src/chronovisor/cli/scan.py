"""`chronovisor scan`: find where machine code writes time registers, and prove the switches among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chronovisor.cli.output import show
from chronovisor.cli.status import ExitStatus
from chronovisor.machine.errors import ImageError, MachineError
from chronovisor.machine.files import FileError, find_image, read_regular
from chronovisor.proof.code.image import CodeError, CodeImage, parse_code
from chronovisor.proof.code.time_writes import Line, TimeWrite, around, time_writes

if TYPE_CHECKING:
    from chronovisor.proof.code.claim import CodeFinding
    from chronovisor.proof.code.offset_switch import OffsetSwitch


@dataclass(frozen=True, slots=True)
class _Proven:
    """A switch and its findings: the words of each claim, and what the prover found."""

    switch: OffsetSwitch
    findings: list[tuple[str, CodeFinding]]


def command(
    file: Annotated[Path, typer.Argument(help="An ELF file: a kernel, a module, an executable, an object.")],
    context: Annotated[
        int, typer.Option(min=0, max=64, help="How many instructions to show before and after each write.")
    ] = 4,
    prove: Annotated[
        bool, typer.Option("--prove/--no-prove", help="Prove each switch of the timebase that is recognised.")
    ] = True,
    timeout: Annotated[
        float, typer.Option(min=0.001, max=86_400.0, help="Seconds for the proofs of one switch.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> int:
    """Find every write of TBU40, TBU, TBL, DEC and HDEC in the code of an ELF file for 64-bit Power, and show
    the instructions around each. Code that is recognised as a switch of the timebase is proven: for every
    timebase, and however many ticks pass between two instructions, it shifts the timebase by exactly the
    offset; a time that it stores is the timebase; an offset that it stores as applied is the one added.

    Status 1 says that something is refuted or undecided.
    """
    try:
        path = find_image(file)
        image = parse_code(read_regular(path), str(path))
    except FileError as error:
        raise ImageError(f"{file}: {error}") from None
    except CodeError as error:
        raise ImageError(str(error)) from None
    writes = time_writes(image)
    proofs = _prove(image, writes, timeout) if prove else iter(())
    if not as_json:
        return _print(image, writes, proofs, context)
    proven = list(proofs)
    print(json.dumps(_as_json(image, writes, proven, context), indent=2))
    return _status(proven)


def _prove(image: CodeImage, writes: list[TimeWrite], timeout: float) -> Iterator[_Proven]:
    if not any(write.register == "TBU40" for write in writes):
        return
    try:
        from chronovisor.proof.code.offset_switch import offset_switches
        from chronovisor.proof.code.properties import prove_each
        from chronovisor.proof.prover import Outcome
    except ModuleNotFoundError as error:
        if error.name != "z3":
            raise
        raise MachineError(
            "the prover z3 is not installed (there is none for Power hosts): scan with --no-prove, "
            "or on another machine"
        ) from None

    for switch in offset_switches(image, writes):
        findings = list(zip(switch.claim.words, prove_each(image, switch.claim, timeout), strict=True))
        for claim in (switch.remembering, switch.steady):
            if claim is None or findings[0][1].outcome is not Outcome.PROVEN:
                break
            words, finding = list(zip(claim.words, prove_each(image, claim, timeout), strict=True))[-1]
            findings.append((words, finding))
            if finding.outcome is Outcome.PROVEN:
                # The claim holds even if others change the offset meanwhile, so it need not be steady.
                break
        yield _Proven(switch, findings)


def _status(proven: list[_Proven]) -> int:
    if not proven:
        return ExitStatus.OK
    # The prover is installed if something was proven.
    from chronovisor.proof.prover import Outcome

    holds = all(f.outcome is Outcome.PROVEN for each in proven for _, f in each.findings)
    return ExitStatus.OK if holds else ExitStatus.FAILED


def _print(image: CodeImage, writes: list[TimeWrite], proofs: Iterator[_Proven], context: int) -> int:
    from collections import Counter

    for write in writes:
        show(f"{write.register} is written at {image.place(write.address)}")
        for line in around(image, write.address, context, context):
            show(f"  {'>' if line.address == write.address else ' '} {line.address:#x}  {line.text}")
        print()
    proven = []
    for each in proofs:
        proven.append(each)
        _print_switch(image, each)
    counts = Counter(write.register for write in writes)
    by_name = ", ".join(f"{counts[name]} of {name}" for name in dict.fromkeys(w.register for w in writes))
    known = {write.address for each in proven for write in each.switch.writes}
    show(f"{image.name}: {len(writes)} writes of registers of time{f': {by_name}' if by_name else ''}")
    for write in writes:
        if proven and write.register == "TBU40" and write.address not in known:
            show(f"{image.place(write.address)} is not part of a recognised switch")
    return _status(proven)


def _print_switch(image: CodeImage, proven: _Proven) -> None:
    from chronovisor.cli.prove_code import said
    from chronovisor.proof.code.story import assumed, story

    claim = proven.switch.claim
    done = "taken from" if claim.subtracts else "added to"
    show(
        f"{image.place(claim.start)} up to {image.place(claim.end)} is a switch: {claim.shifts_by} is {done} "
        "the timebase"
    )
    for words, finding in proven.findings:
        show(f"  {said(finding)}: {words}" if finding.run is None else f"  {said(finding)}")
        show(f"    assumed: {'; '.join(map(str, finding.claim.assumptions))}")
        for line in story(image, finding):
            show(f"    {line}")
    show("  assumed of all:")
    for line in assumed(proven.findings[0][1]):
        if line not in map(str, claim.assumptions):
            show(f"    {line}")
    print()


def _as_json(
    image: CodeImage, writes: list[TimeWrite], proven: list[_Proven], context: int
) -> dict[str, Any]:
    from chronovisor.proof.code.story import as_json

    return {
        "file": image.name,
        "byte_order": "little" if image.little else "big",
        "writes": [
            {
                "register": write.register,
                "address": write.address,
                "place": image.place(write.address),
                "code": [line_as_json(line) for line in around(image, write.address, context, context)],
            }
            for write in writes
        ],
        "switches": [
            {
                "from": image.place(each.switch.claim.start),
                "to": image.place(each.switch.claim.end),
                "writes": [image.place(write.address) for write in each.switch.writes],
                "offset": str(each.switch.claim.shifts_by),
                "subtracted": each.switch.claim.subtracts,
                "findings": [{"claim": words, **as_json(image, finding)} for words, finding in each.findings],
            }
            for each in proven
        ],
    }


def line_as_json(line: Line) -> dict[str, Any]:
    """Return an instruction as JSON's types."""
    return {"address": line.address, "word": f"{line.word:08x}", "text": line.text}
