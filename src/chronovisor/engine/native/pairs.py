"""Instructions that often follow one another, done by one handler.

Only their names are declared here: a pair's handler comes from the meanings of both. If the second reads the
register that the first sets, the value stays in a machine register: a *link*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from chronovisor.engine.native.encoding import register_or_zero
from chronovisor.isa.forms import FIELDS, Field
from chronovisor.isa.instruction import INSTRUCTIONS, Instruction
from chronovisor.isa.values import Program, Value, When, mask

Key = tuple[Instruction, tuple[int, ...]]

_ARITHMETIC = ("add", "addi", "and", "andc", "or", "rldicl", "rldicr", "rlwinm", "subf", "xor")
_LOADS = ("lbz", "ld", "lwz")
_STORES = ("std", "stw")
_COMPARISONS = ("cmp", "cmpi", "cmpl", "cmpli")
#: Values of BO. The branch is taken if a condition bit is 1; if it is 0; if CTR, counted down, is not 0.
_IF, _UNLESS, _COUNTS = 12, 4, 16

#: The first's mnemonics, the second's, and the values of BO if the second is a conditional branch.
_FOLLOW: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]], ...] = (
    ((*_ARITHMETIC, *_LOADS), _ARITHMETIC, ()),
    (_LOADS, (*_LOADS, *_STORES, "cmpi", "cmpl"), ()),
    (_STORES, (*_STORES, *_LOADS, "addi"), ()),
    (("addi", "add"), (*_LOADS, *_STORES, "cmpi", "cmpl"), ()),
    (_COMPARISONS, ("bc",), (_IF, _UNLESS)),
    ((*_STORES, "add", "addi", "subf", "xor"), ("bc",), (_COUNTS,)),
)


@dataclass(frozen=True)
class Pair:
    """Two instructions; ``link`` is the second's operand that names the register which the first sets.

    The second, if it is a branch, jumps within its page.
    """

    first: Key
    second: Key
    link: str | None


def _sets(program: Program) -> Value | None:
    """The one statement by which a program sets a register in any case."""
    found = [s for s in program.body if not isinstance(s, When) and s.op == "write_file"]
    return found[0] if len(found) == 1 and found[0].args[0].op == "operand" else None


def target(program: Program) -> str | None:
    """The operand that names the one register which a program sets in any case."""
    sets = _sets(program)
    return None if sets is None else str(sets.args[0].detail)


def result(program: Program) -> Value:
    """What the program sets that register to."""
    sets = _sets(program)
    assert sets is not None
    return sets.args[1]


def sources(program: Program) -> dict[str, bool]:
    """The operands that name registers which a program reads; True if it reads (RA|0)."""
    reads = [s for s in program.statements() if s.op == "read_file" and s.args[0].op == "operand"]
    chosen = {id(register_or_zero(s)) for s in program.statements()}
    found: dict[str, bool] = {}
    for read in reads:
        name = str(read.args[0].detail)
        found[name] = found.get(name, False) or id(read) in chosen
    return found


def _keys(mnemonic: str, branches: tuple[int, ...]) -> Iterator[Key]:
    """The forms of an instruction, of any width, that set no flags and LR and are relative."""
    (one,) = (i for i in INSTRUCTIONS if i.mnemonic == mnemonic)
    widths = (0, 1) if "L" in one.statics else (0,)
    for width in widths:
        for branch in branches or (0,):
            yield one, tuple({"L": width, "BO": branch}.get(name, 0) for name in one.statics)


@cache
def pairs() -> tuple[Pair, ...]:
    """All pairs that have a handler; of the same two instructions first those with a link."""
    found: list[Pair] = []
    for firsts, seconds, branches in _FOLLOW:
        for first in (key for name in firsts for key in _keys(name, ())):
            for second in (key for name in seconds for key in _keys(name, branches)):
                links = _sources(second) if _target(first) else {}
                found += (Pair(first, second, link) for link in (*links, None))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Link:
    """The fields of two words that must hold one register number; ``least`` is 1 if 0 names no register."""

    first: Field
    second: Field
    least: int

    @property
    def places(self) -> tuple[int, int, int, int]:
        """How far the fields are to be shifted down in each word, the mask of both, and ``least``."""
        ((_, one),), ((first, last),) = self.first.pieces, self.second.pieces
        assert self.first.width == self.second.width
        return 31 - one, 31 - last, mask(last - first + 1), self.least


@cache
def _target(key: Key) -> str | None:
    return target(key[0].program(key[1]))


@cache
def _sources(key: Key) -> dict[str, bool]:
    return sources(key[0].program(key[1]))


def link(pair: Pair) -> Link | None:
    """Where the words of two instructions name the register that links them; None if they need no link."""
    if pair.link is None:
        return None
    sets = _target(pair.first)
    assert sets is not None
    return Link(FIELDS[sets], FIELDS[pair.link], int(_sources(pair.second)[pair.link]))
