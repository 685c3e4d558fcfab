"""Which stencils an instruction has: one for all its records, or several, each for those that it suits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from chronovisor.engine.native.encoding import Encoding, Source
from chronovisor.engine.native.known_values import known_value
from chronovisor.isa.forms import FIELDS, Kind
from chronovisor.isa.registers import FILES
from chronovisor.isa.values import Value

NUMBER_BITS = 32

#: Uses of instructions that are so common that they have stencils of their own: what operands are, a number
#: or another operand. The first of these does nothing, the second copies a register.
_USES: Final[Mapping[str, Mapping[str, int | str]]] = {
    "ori": {"UI": 0, "RA": "RS"},
    "or": {"RB": "RS"},
}


class NoStencilError(Exception):
    """An instruction does more than a stencil can."""


@dataclass(frozen=True)
class Variant:
    """Which of an instruction's records a stencil is for: those with this number at a place in `small`.

    All these records have the operands ``known``. If ``is_zero``, their (RA|0) is 0. ``place`` is None if the
    stencil is for all records, ``number`` is None if it is for those that have no other.

    Of several for the same number the first one is taken whose further conditions a record meets: wide
    values are numbers of the kinds in ``wide``, by their places, and the two small values at the places
    ``equal`` are the same.
    """

    known: Mapping[str, int]
    place: int | None = None
    number: int | None = None
    is_zero: bool = False
    wide: Mapping[int, str] = field(default_factory=dict)
    equal: tuple[int, int] | None = None


def computed(v: Value, operands: Mapping[str, int]) -> int | None:
    """A value that these operands determine, or None."""
    return known_value(v, lambda one: operands.get(str(one.detail)) if one.op == "operand" else None, {})


def variants(mnemonic: str, layout: Encoding) -> list[Variant]:
    """The stencils that an instruction with this layout has; NoStencilError if they are too many."""
    return [one for base in _by_number(layout) for one in _by_condition(mnemonic, layout, base)]


def _operands(v: Value) -> set[str]:
    """The names of the operands that a fixed value depends on."""
    if v.op == "operand":
        return {str(v.detail)}
    return set().union(*map(_operands, v.args)) if v.args else set()


def _by_number(layout: Encoding) -> list[Variant]:
    read = set().union(*map(_operands, (*layout.small, *layout.wide)))
    about_cr = [n for n in sorted(read) if n in FIELDS and FIELDS[n].kind in (Kind.CR_FIELD, Kind.CR_BIT)]
    if not about_cr:
        return _by_base(layout)
    if len(about_cr) > 1:
        raise NoStencilError
    (name,) = about_cr
    numbers = range(1 << FIELDS[name].width)
    for place, small in enumerate(layout.small):
        found = [computed(small, {name: number}) for number in numbers]
        if None not in found and len(set(found)) == len(found):
            return [Variant({name: n}, place, v) for n, v in zip(numbers, found, strict=True)]
    raise NoStencilError


def _by_base(layout: Encoding) -> list[Variant]:
    """Two if there is one (RA|0) in a general-purpose register, which is 0 for one of them."""
    bases = [v for v, source in layout.sources.items() if source is Source.REGISTER]
    if len(bases) != 1:
        return [Variant({})]
    _, place = layout.places[bases[0]]
    return [Variant({}, place, FILES["GPR"].count, is_zero=True), Variant({}, place)]


def _by_condition(mnemonic: str, layout: Encoding, base: Variant) -> Iterator[Variant]:
    """The stencils with further conditions, and then the one without."""
    if mnemonic in _USES:
        yield _of_use(_USES[mnemonic], layout, base)
    loaded = {place: layout.wide[place] for kind, place in layout.places.values() if kind == "wide"}
    varying = {place: v for place, v in loaded.items() if computed(v, base.known) is None}
    if not varying:
        yield base
        return
    is_short = all(map(is_number, varying.values()))
    for kind in ("byte", "number") if is_short else ("unsigned", "number", "wide"):
        yield replace(base, wide=dict.fromkeys(varying, kind))


def _of_use(use: Mapping[str, int | str], layout: Encoding, base: Variant) -> Variant:
    def place(values: tuple[Value, ...], name: str) -> int:
        (found,) = (n for n, v in enumerate(values) if v.op == "operand" and v.detail == name)
        return found

    zeros = [name for name, same in use.items() if same == 0]
    ((one, other),) = ((name, same) for name, same in use.items() if isinstance(same, str))
    return replace(
        base,
        wide={place(layout.wide, name): "zero" for name in zeros},
        equal=(place(layout.small, one), place(layout.small, other)),
    )


def is_number(v: Value) -> bool:
    """Whether a wide fixed value has 32 bits, sign-extended, whatever the instruction is."""
    if v.op in ("sext", "zext", "trunc"):
        return is_number(v.args[0])
    found = FIELDS.get(str(v.detail)) if v.op == "operand" else None
    return found is not None and found.width + found.shift < NUMBER_BITS + (found.kind is Kind.SIGNED)
