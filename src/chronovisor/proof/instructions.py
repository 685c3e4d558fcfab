"""The table of instructions: how each is declared, and which evaluators have its meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import chronovisor.isa.decode  # noqa: F401 - declares the instructions
from chronovisor.engine import python_source
from chronovisor.isa.extended_mnemonics import extended_mnemonics
from chronovisor.isa.forms import FIELDS
from chronovisor.isa.instruction import INSTRUCTIONS, UNIMPLEMENTED, Instruction
from chronovisor.isa.registers import ALIASES, REGISTERS, SPR_READ, SPR_WRITE, Privilege, Register
from chronovisor.isa.values import Program


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one instruction."""

    assembly: str
    """The assembly template, with the mnemonic's options in brackets."""
    form: str
    opcodes: tuple[int, ...]
    """The primary opcode, and the extended one if the form has one."""
    match: int
    """The opcode bits of the instruction word."""
    mask: int
    """Ones where a word must agree with `match`."""
    section: str
    privileges: tuple[str, ...]
    """The least privilege that it needs; several if that depends on its fields, none without a meaning."""
    evaluators: dict[str, bool]
    """The evaluators on this machine that execute it: whether with all values of its fields, or with some."""


def instructions(name: str) -> list[Row]:
    """Return the instructions that `name` means, in the order of their mnemonics.

    That is the instruction of this mnemonic, or those that an extended mnemonic stands for, or else all whose
    mnemonics begin with `name`.
    """
    declared = sorted((*INSTRUCTIONS, *UNIMPLEMENTED), key=lambda each: each.mnemonic)
    names = _stands_for(name)
    found = [each for each in declared if any(_is_spelled(each, one) for one in names)]
    return [_row(each) for each in found or declared if found or each.mnemonic.startswith(name)]


@dataclass(frozen=True, slots=True)
class RegisterRow:
    """What is known of one register, or of an alias."""

    name: str
    spr_read: int | None
    spr_write: int | None
    width: int
    read: str
    """The least privilege that a move from it needs; empty if there is no such move."""
    write: str
    one_per: str
    """`thread` or `core`: what has an instance of its own."""
    alias_of: str | None


def registers(name: str) -> list[RegisterRow]:
    """Return the registers and aliases whose names begin with `name`, in any case, sorted by name."""
    every = {**REGISTERS, **ALIASES}
    return [_register_row(every[each]) for each in sorted(every) if each.startswith(name.upper())]


def _register_row(register: Register) -> RegisterRow:
    readable, writable = (each is not Privilege.NEVER for each in (register.read, register.write))
    owner = REGISTERS[register.alias_of or register.name]
    return RegisterRow(
        register.name,
        register.spr if readable else None,
        register.spr_write if writable else None,
        register.width,
        register.read.name.lower() if readable else "",
        register.write.name.lower() if writable else "",
        owner.scope.name.lower(),
        register.alias_of,
    )


def _stands_for(name: str) -> set[str]:
    """Return the mnemonics of the instructions that an extended mnemonic consists of, or else `name`."""
    expansions = [expansion for (known, _), expansion in extended_mnemonics().items() if known == name]
    used = {line.split()[0] for expansion in expansions for line in expansion.lines}
    further = (_stands_for(each) for each in used - {name})
    return ({name} if name in used or not used else set()).union(*further)


def _is_spelled(declared: Instruction, name: str) -> bool:
    """Return whether `name` is the mnemonic, with or without its options: `addo.` is `add[o][.]`."""
    head = re.escape(declared.assembly.split()[0])
    return re.fullmatch(re.sub(r"\\\[(.+?)\\\]", r"(\1)?", head), name) is not None


def _row(declared: Instruction) -> Row:
    privileges: set[Privilege] = set()
    executed: dict[str, list[bool]] = {}
    if declared.implemented:
        combinations = list(_combinations(declared))
        privileges = {declared.privilege(statics) for statics in combinations}
        programs = [declared.program(statics) for statics in combinations]
        executed = {name: list(map(executes, programs)) for name, executes in _evaluators().items()}
    extended = () if declared.extended_opcode is None else (declared.extended_opcode,)
    return Row(
        declared.assembly,
        declared.form.name,
        (declared.opcode, *extended),
        declared.match,
        declared.mask,
        declared.cite,
        tuple(each.name.lower() for each in sorted(privileges)),
        {name: all(each) for name, each in executed.items() if any(each)},
    )


def _combinations(declared: Instruction) -> Iterator[tuple[int, ...]]:
    """Yield the values of the static fields: each value of each field, while the others have their first."""
    values = [_values(declared, name) for name in declared.statics]
    first = [each[0] for each in values]
    yield tuple(first)
    for position, each in enumerate(values):
        yield from ((*first[:position], value, *first[position + 1 :]) for value in each[1:])


def _values(declared: Instruction, field: str) -> list[int]:
    """Return the values that a static field can have; of a register's number, those of declared registers."""
    if field in ("SPR", "TBR"):
        return sorted(SPR_WRITE if declared.mnemonic.startswith("mt") else SPR_READ)
    return list(range(1 << FIELDS[field].width))


@cache
def _evaluators() -> dict[str, Callable[[Program], bool]]:
    """Return the evaluators that this machine has: name -> whether it executes a program."""
    found = {"concrete": _has_rows({*python_source.EXPRESSIONS, *python_source.STATEMENTS})}
    try:
        from chronovisor.engine.native.operations import is_native
    except ModuleNotFoundError as error:
        if error.name != "llvmlite":
            raise
    else:
        found["native"] = is_native
    try:
        from chronovisor.engine.symbolic import evaluator, terms
    except ModuleNotFoundError as error:
        if error.name != "z3":
            raise
    else:
        found["symbolic"] = _has_rows({"operand", *terms.EXPRESSIONS, *evaluator.STATEMENTS})
    return found


def _has_rows(operations: set[str]) -> Callable[[Program], bool]:
    return lambda program: all(statement.op in operations for statement in program.statements())
