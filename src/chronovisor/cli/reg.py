"""`chronovisor reg`: registers of a running guest, by their names."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from chronovisor.cli.guest_name import GuestName
from chronovisor.kvm.registers import register_names
from chronovisor.machine.control import PATIENCE, ask
from chronovisor.machine.errors import MachineError


def _registers(incomplete: str) -> list[str]:
    """Return the names that begin so, in the case in which the first letters are."""
    names = (name.lower() if incomplete.islower() else name for name in register_names())
    return [name for name in names if name.startswith(incomplete)]


def command(
    name: GuestName,
    register: Annotated[
        str,
        typer.Argument(
            help="Show this one; with a value, set it.", metavar="REGISTER[=VALUE]", autocompletion=_registers
        ),
    ] = "",
    vcpu: Annotated[int, typer.Option(help="Whose registers.", metavar="N")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")] = False,
) -> None:
    """Show all registers of a running guest, or show or set one: TB_OFFSET, DEC_EXPIRY, PC, MSR, R0, ….

    The guest is paused meanwhile. KVM rounds what TB_OFFSET is set to up to a multiple of 2^24; what is shown
    is what it kept.
    """
    wanted, sign, text = register.partition("=")
    answer = ask(
        name,
        "reg",
        PATIENCE,
        register=wanted.strip() or None,
        value=_value(wanted, text) if sign else None,
        vcpu=vcpu,
    )
    if as_json:
        print(json.dumps({of: found["value"] for of, found in answer.items()}, indent=2))
        return
    for of, found in answer.items():
        print(f"{of:12} {found['value']:#0{2 + 2 * found['size']}x}")


def _value(register: str, text: str) -> int:
    if not register.strip():
        raise MachineError("write REGISTER=VALUE, as in TB_OFFSET=0x1000000")
    try:
        return int(text.strip(), 0)
    except ValueError:
        raise MachineError(f"{register}: {text!r} is no number; write it in decimal or as 0x…") from None
