"""Declare many instructions by rows of text.

A line that begins with `Book` names the section of the rows below it. A row has the assembly template, as
``chronovisor.isa.instruction.instruction`` takes it, then the form, the opcode, the extended opcode if the
form has one, and fields that are part of the opcode:

    Book I 6.13 Vector Count Leading Zeros Instructions
      vclzb VRT,VRB                      VX 4 1794
"""

from __future__ import annotations

import re

from chronovisor.isa import forms
from chronovisor.isa.forms import Form
from chronovisor.isa.instruction import unimplemented
from chronovisor.isa.values import Meaning

_FORMS: dict[str, Form] = {name: form for name, form in vars(forms).items() if isinstance(form, Form)}
_SECTION = re.compile(r"Book (I+ [\d.]+\d)")


def declare(needs: Meaning, table: str) -> None:
    """Declare each row of `table` as an instruction without a meaning, which needs a facility."""
    section = ""
    for line in filter(None, map(str.strip, table.splitlines())):
        if found := _SECTION.match(line):
            section = f"Book {found[1]}"
            continue
        assembly, encoding = re.split(r" {2,}", line, maxsplit=1)
        form, *numbers = encoding.split()
        fixed = {name: int(number) for name, number in (part.split("=") for part in numbers if "=" in part)}
        opcodes = [int(part) for part in numbers if "=" not in part]
        unimplemented(assembly, _FORMS[form], *opcodes, cite=section, **fixed)(needs)
