"""Truth values that depend on the unknowns, and who decides them.

If code takes a decision by a `SymbolicBool` (`if`, `while`, `min`), the path that explores the code decides
(`chronovisor.proof.paths`), and the other decision is explored later.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, cast

import z3

from chronovisor.proof.terms import Terms


class BeyondProverError(Exception):
    """The code does something that the prover cannot follow, so nothing is found out about it."""


class OneForManyError(BeyondProverError, TypeError):
    """The code asked a symbolic integer for something that only a single number has."""


class Decider(Protocol):
    """Takes the decisions of code that runs on symbolic values, and gives the arithmetic of their terms."""

    @property
    def terms(self) -> Terms:
        """The arithmetic."""

    def decide(self, condition: z3.BoolRef) -> bool:
        """Return the truth of `condition` on the path being explored."""


class SymbolicBool:
    """The outcome of a comparison, which depends on the unknowns."""

    __slots__ = ("_path", "term")

    def __init__(self, path: Decider, term: z3.BoolRef) -> None:
        self._path = path
        self.term = term

    @staticmethod
    def made(path: Decider, term: z3.BoolRef) -> bool:
        """Return the truth of `term`: a plain bool if it is the same for all cases, else a `SymbolicBool`."""
        simple = z3.simplify(term)
        if z3.is_true(simple):
            return True
        if z3.is_false(simple):
            return False
        return cast(bool, SymbolicBool(path, simple))

    def __bool__(self) -> bool:
        return self._path.decide(self.term)

    def _with(self, other: object, combine: Any) -> Any:
        if isinstance(other, SymbolicBool):
            return SymbolicBool.made(self._path, combine(self.term, other.term))
        if isinstance(other, bool):
            return SymbolicBool.made(self._path, combine(self.term, z3.BoolVal(other)))
        return NotImplemented

    def __and__(self, other: object) -> Any:
        return self._with(other, z3.And)

    __rand__ = __and__

    def __or__(self, other: object) -> Any:
        return self._with(other, z3.Or)

    __ror__ = __or__

    def __xor__(self, other: object) -> Any:
        return self._with(other, z3.Xor)

    __rxor__ = __xor__

    def __eq__(self, other: object) -> Any:
        return self._with(other, lambda a, b: a == b)

    def __ne__(self, other: object) -> Any:
        return self._with(other, z3.Xor)

    def __hash__(self) -> NoReturn:
        refuse("a hash")

    def __repr__(self) -> str:
        return f"<{z3.simplify(self.term)}>"


def term_of(condition: bool) -> z3.BoolRef:
    """Return the prover's term for a truth value, plain or symbolic."""
    return condition.term if isinstance(condition, SymbolicBool) else z3.BoolVal(bool(condition))


def refuse(what: str) -> NoReturn:
    """Raise OneForManyError: there is no such thing for many numbers at once."""
    raise OneForManyError(f"a symbolic integer stands for many numbers: it cannot be made {what}")
