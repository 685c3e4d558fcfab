"""The arguments for machine code on a command line: places that hold a value, and assumptions.

A *place* is a general purpose register, `r8`, or the doubleword in memory at a distance from a register,
`168(r5)`, as assemblers write it. The register means its value at the beginning of the range. An *assumption*
is one of

    PLACE [& MASK] OPERATOR NUMBER      OPERATOR: = != < <= > >=, of unsigned 64-bit numbers
    age(PLACE) <= TICKS                 the timebase, read at most so many ticks before the range begins
    steady(PLACE)                       no other thread changes this word while the code runs
    apart(PLACE, PLACE, …)              words of memory of which none overlaps another
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import z3

from chronovisor.engine.symbolic import SymbolicState
from chronovisor.timebase.types import MASK64

_BYTES = 8
_REGISTER = re.compile(r"[rR](\d{1,2})")
_WORD = re.compile(r"(-?(?:0[xX][0-9a-fA-F]+|\d+)?)\(\s*[rR](\d{1,2})\s*\)")
_COMPARISON = re.compile(
    r"(.+?)(?:&\s*(0[xX][0-9a-fA-F]+|\d+)\s*)?(!=|<=|>=|=|<|>)\s*(0[xX][0-9a-fA-F]+|\d+)"
)
_NAMED = re.compile(r"(age|steady|apart)\s*\((.*)\)\s*(?:<=\s*(0[xX][0-9a-fA-F]+|\d+))?")


class AssumptionError(Exception):
    """A place or an assumption that cannot be read; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Register:
    """A general purpose register."""

    number: int

    def __str__(self) -> str:
        return f"r{self.number}"

    def value(self, state: SymbolicState, before: SymbolicState, little: bool) -> z3.BitVecRef:
        """Its value in `state`, 64 bits."""
        return state.gpr[self.number]


@dataclass(frozen=True, slots=True)
class Word:
    """A doubleword in memory, `displacement` bytes from the address in a register as the range begins."""

    displacement: int
    base: int

    def __str__(self) -> str:
        return f"{self.displacement}(r{self.base})"

    def address(self, before: SymbolicState) -> z3.BitVecRef:
        """Its address, from the state at the beginning of the range."""
        return z3.simplify(before.gpr[self.base] + self.displacement)

    def value(self, state: SymbolicState, before: SymbolicState, little: bool) -> z3.BitVecRef:
        """Its value in `state`, 64 bits."""
        return state.bytes_at(self.address(before), _BYTES, little)


Place: TypeAlias = Register | Word

_OPERATORS: Final[dict[str, Callable[[Any, Any], z3.BoolRef]]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": z3.ULT,
    "<=": z3.ULE,
    ">": z3.UGT,
    ">=": z3.UGE,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """`place & mask OPERATOR number`, unsigned."""

    place: Place
    mask: int
    operator: str
    number: int

    def __str__(self) -> str:
        masked = "" if self.mask == MASK64 else f" & {self.mask:#x}"
        return f"{self.place}{masked} {self.operator} {self.number:#x}"

    def given(self, value: z3.BitVecRef) -> z3.BitVecRef:
        """A value of the place with the bits that the comparison fixes put in. This makes proofs faster."""
        if self.operator != "=" or self.number & ~self.mask:
            return value
        return z3.simplify((value & (self.mask ^ MASK64)) | self.number)

    def holds(self, value: z3.BitVecRef) -> z3.BoolRef:
        """Whether the comparison holds for this value of the place."""
        return _OPERATORS[self.operator](value & self.mask, z3.BitVecVal(self.number, 64))


@dataclass(frozen=True, slots=True)
class Age:
    """The place holds the timebase, read at most `ticks` before the range begins."""

    place: Place
    ticks: int

    def __str__(self) -> str:
        return f"age({self.place}) <= {self.ticks}"


@dataclass(frozen=True, slots=True)
class Steady:
    """No other thread changes the word while the code runs."""

    place: Word

    def __str__(self) -> str:
        return f"steady({self.place})"


@dataclass(frozen=True, slots=True)
class Apart:
    """None of these words overlaps another."""

    places: tuple[Word, ...]

    def __str__(self) -> str:
        return f"apart({', '.join(map(str, self.places))})"

    def holds(self, before: SymbolicState) -> z3.BoolRef:
        """Whether it holds at the beginning of the range."""
        addresses = [place.address(before) for place in self.places]
        return z3.And(
            *(
                z3.And(
                    z3.UGE(a - b, _BYTES),
                    z3.UGE(b - a, _BYTES),
                )
                for number, a in enumerate(addresses)
                for b in addresses[number + 1 :]
            )
        )


Assumption: TypeAlias = Compared | Age | Steady | Apart


def parse_place(text: str) -> Place:
    """Read a place. Raises `AssumptionError`."""
    register = _REGISTER.fullmatch(text.strip())
    if register is not None and int(register[1]) < 32:
        return Register(int(register[1]))
    word = _WORD.fullmatch(text.strip())
    if word is not None and 0 < int(word[2]) < 32 and word[1] != "-":
        sign = -1 if word[1].startswith("-") else 1
        return Word(sign * _number(word[1].removeprefix("-") or "0"), int(word[2]))
    raise AssumptionError(f"{text.strip()!r} is no place: give a register, as r8, or a word, as 168(r5)")


def parse_word(text: str) -> Word:
    """Read a place in memory. Raises `AssumptionError`."""
    place = parse_place(text)
    if isinstance(place, Word):
        return place
    raise AssumptionError(f"{place} is a register: what is said is of a word of memory, as 168(r5)")


def parse_assumption(text: str) -> Assumption:
    """Read an assumption. Raises `AssumptionError`."""
    named = _NAMED.fullmatch(text.strip())
    if named is not None:
        what, inside, limit = named.groups()
        if (what == "age") == (limit is not None):
            if what == "age":
                return Age(parse_place(inside), _number(limit))
            if what == "steady":
                return Steady(parse_word(inside))
            places = tuple(parse_word(each) for each in inside.split(","))
            if len(places) > 1:
                return Apart(places)
    compared = _COMPARISON.fullmatch(text.strip())
    if compared is not None and named is None:
        mask = MASK64 if compared[2] is None else _number(compared[2])
        return Compared(parse_place(compared[1]), mask, compared[3], _number(compared[4]))
    raise AssumptionError(
        f"{text.strip()!r} is no assumption: give PLACE [& MASK] = NUMBER (or != < <= > >=), "
        "age(PLACE) <= TICKS, steady(WORD) or apart(WORD, WORD)"
    )


def _number(text: str) -> int:
    number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    if number > MASK64:
        raise AssumptionError(f"{text} has more than 64 bits")
    return number
