"""`chronovisor isa`: the instructions and registers that Chronovisor knows."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from chronovisor.cli.output import terminal_width
from chronovisor.machine.errors import MachineError
from chronovisor.proof.instructions import RegisterRow, Row, instructions, registers
from chronovisor.report.columns import fitting

_COLUMNS = ("INSTRUCTION", "FORM", "OPCODE", "SECTION", "PRIVILEGE", "EVALUATORS")
_REGISTER_COLUMNS = ("REGISTER", "SPR", "BITS", "READ BY", "WRITTEN BY", "ONE PER")


def command(
    name: Annotated[
        str,
        typer.Argument(help="A mnemonic, or the beginning of several.", metavar="MNEMONIC|PREFIX"),
    ] = "",
    of_registers: Annotated[
        bool, typer.Option("--registers", help="List registers, by the beginning of their names.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON array.")] = False,
) -> None:
    """List the instructions that Chronovisor knows. For an extended mnemonic (`li`, say), list the
    instructions that it stands for.

    Brackets hold optional letters of the mnemonic. OPCODE is the primary and the extended opcode. SECTION is
    the book and section of Power ISA 3.0B. PRIVILEGE is the least state that may execute the instruction, or
    `varies` if that depends on its fields. EVALUATORS are those of this machine that execute it: c concrete,
    n native, s symbolic; in parentheses if they execute it with some values of its fields only. An
    instruction with `-` has no meaning yet: guests get an interrupt.

    With --registers, READ BY and WRITTEN BY are the least states that may move the register from and to its
    SPR numbers. Registers have one instance for each thread or for each core.
    """
    if of_registers:
        listed = registers(name)
        _check(listed, name, "register", "chronovisor isa --registers")
        _show([_register_as_json(each) for each in listed], _register_rows(listed), as_json)
        return
    found = instructions(name)
    _check(found, name, "instruction", "chronovisor isa")
    _show([_as_json(each) for each in found], [_COLUMNS, *map(_shown, found)], as_json)


def _check(found: list[Any], name: str, kind: str, lists_all: str) -> None:
    if not found:
        raise MachineError(f"no {kind} is named {name} or begins with {name}: `{lists_all}` lists all")


def _show(answer: list[dict[str, Any]], rows: list[tuple[str, ...]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    for line in fitting(rows, terminal_width()):
        print(line)


def _shown(row: Row) -> tuple[str, ...]:
    evaluators = " ".join(n[0] if whole else f"({n[0]})" for n, whole in row.evaluators.items())
    privilege = "varies" if len(row.privileges) > 1 else "".join(row.privileges)
    return (
        row.assembly,
        row.form,
        " ".join(map(str, row.opcodes)),
        row.section.removeprefix("Book "),
        privilege or "-",
        evaluators or "-",
    )


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "instruction": row.assembly,
        "form": row.form,
        "opcodes": list(row.opcodes),
        "match": f"{row.match:08x}",
        "mask": f"{row.mask:08x}",
        "section": row.section,
        "privileges": list(row.privileges),
        "evaluators": {name: "all" if whole else "some" for name, whole in row.evaluators.items()},
    }


def _register_rows(listed: list[RegisterRow]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [_REGISTER_COLUMNS]
    for each in listed:
        numbers = dict.fromkeys(str(n) for n in (each.spr_read, each.spr_write) if n is not None)
        texts = ("/".join(numbers), str(each.width), each.read, each.write, each.one_per)
        rows.append((each.name, *(text or "-" for text in texts)))
    return rows


def _register_as_json(each: RegisterRow) -> dict[str, Any]:
    return {
        "register": each.name,
        "spr_read": each.spr_read,
        "spr_write": each.spr_write,
        "bits": each.width,
        "read_by": each.read or None,
        "written_by": each.write or None,
        "one_per": each.one_per,
        "alias_of": each.alias_of,
    }
