"""Declare many instructions by rows of text.

A line that begins with `Book` names the section of the rows below it. A row has the assembly template, as
``chronovisor.isa.instruction.instruction`` takes it, then the form, the opcode, the extended opcode if the
form has one, and fields that are part of the opcode:

    Book I 6.13 Vector Count Leading Zeros Instructions
      vclzb VRT,VRB                      VX 4 1794

A meaning is declared by its mnemonic alone: the row says the rest.

    @meaning("vclzb")
    def vclzb(m: Machine, VRT: Value, VRB: Value) -> None:
        ...
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps

from chronovisor.isa import forms
from chronovisor.isa.forms import FIELDS, Form, Kind
from chronovisor.isa.instruction import instruction, mnemonic_of, parameters, unimplemented
from chronovisor.isa.notation import Machine
from chronovisor.isa.values import Meaning

_FORMS: dict[str, Form] = {name: form for name, form in vars(forms).items() if isinstance(form, Form)}
_SECTION = re.compile(r"Book (I+ [\d.]+\d)")


@dataclass(frozen=True, slots=True)
class _Row:
    """An instruction that waits for its meaning: how it is declared, and the check of its facility.

    ``register`` is the operand that the check depends on, if it depends on one.
    """

    assembly: str
    form: Form
    opcodes: tuple[int, ...]
    fixed: dict[str, int]
    section: str
    needs: Meaning
    register: str | None

    def stand_in(self) -> None:
        """Declare the instruction without a meaning."""
        declare = unimplemented(self.assembly, self.form, *self.opcodes, cite=self.section, **self.fixed)
        declare(_stand_in(self.needs, self.register))

    def check(self, m: Machine, fields: dict[str, object]) -> None:
        """Go on only if the facility is on."""
        self.needs(m, *(() if self.register is None else (fields[self.register],)))


_rows: dict[str, _Row] = {}

#: The instructions that are declared by rows, with a meaning or without.
MNEMONICS: set[str] = set()


def declare(needs: Meaning, table: str) -> None:
    """Declare each row of `table`, an instruction that needs a facility. `complete` has to follow."""
    section = ""
    for line in filter(None, map(str.strip, table.splitlines())):
        if found := _SECTION.match(line):
            section = f"Book {found[1]}"
            continue
        assembly, encoding = re.split(r" {2,}", line, maxsplit=1)
        form, *numbers = encoding.split()
        fixed = {name: int(number) for name, number in (part.split("=") for part in numbers if "=" in part)}
        opcodes = tuple(int(part) for part in numbers if "=" not in part)
        register = _register(assembly) if len(parameters(needs)) > 1 else None
        mnemonic = mnemonic_of(assembly)
        _rows[mnemonic] = _Row(assembly, _FORMS[form], opcodes, fixed, section, needs, register)
        MNEMONICS.add(mnemonic)


def complete() -> None:
    """Declare the instructions of the rows that have no meaning, once all meanings are declared."""
    while _rows:
        _rows.pop(next(iter(_rows))).stand_in()


def _register(assembly: str) -> str:
    """The vector-scalar register that an instruction names."""
    fields: list[str] = re.findall(r"[A-Z][A-Za-z0-9]*", assembly.partition(" ")[2])
    return next(name for name in fields if FIELDS[name].kind is Kind.VSR)


@cache
def _stand_in(needs: Meaning, register: str | None) -> Meaning:
    """What an instruction without a meaning does: with its facility on it is an illegal one."""

    def unavailable_or_illegal(m: Machine, **fields: object) -> None:
        needs(m, *fields.values())
        m.illegal()

    names = ("m",) if register is None else ("m", register)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    unavailable_or_illegal.__signature__ = signature  # type: ignore[attr-defined]
    return unavailable_or_illegal


def meaning(mnemonic: str) -> Callable[[Meaning], Meaning]:
    """Declare the meaning of a row's instruction; the check of its facility comes before what is written."""

    def attach(body: Meaning) -> Meaning:
        row = _rows.pop(mnemonic)

        @wraps(body)
        def checked(m: Machine, **fields: object) -> None:
            row.check(m, fields)
            body(m, **fields)

        instruction(row.assembly, row.form, *row.opcodes, cite=row.section, static=(), **row.fixed)(checked)
        return body

    return attach
