"""From an instruction word to the declared instruction."""

from __future__ import annotations

from functools import cache

import chronovisor.isa.facilities
import chronovisor.isa.meanings  # noqa: F401 - both declare the instructions
from chronovisor.isa.instruction import INSTRUCTIONS, RESERVED, UNIMPLEMENTED, Instruction


@cache
def _table() -> dict[int, list[tuple[int, dict[int, Instruction]]]]:
    """Primary opcode -> (mask, match -> instruction), the most specific mask first."""
    masks: dict[int, dict[int, dict[int, Instruction]]] = {}
    for declared in (*INSTRUCTIONS, *UNIMPLEMENTED, *RESERVED):
        matches = masks.setdefault(declared.opcode, {}).setdefault(declared.mask, {})
        if declared.match in matches:
            raise ValueError(f"{declared} and {matches[declared.match]} have one encoding")
        matches[declared.match] = declared
    return {
        opcode: sorted(by_mask.items(), key=lambda item: -item[0].bit_count())
        for opcode, by_mask in masks.items()
    }


def decode(word: int) -> Instruction | None:
    """The instruction that ``word`` (32 bits) encodes, or None if none is declared.

    The instruction may be one that has no meaning yet (``chronovisor.isa.instruction.UNIMPLEMENTED``) or a
    reserved no-op (``RESERVED``).
    """
    for mask, matches in _table().get(word >> 26, ()):
        found = matches.get(word & mask)
        if found is not None:
            return found
    return None
