"""Values that are known before a program runs, because all that they depend on is."""

from __future__ import annotations

from collections.abc import Callable

from chronovisor.engine.python_source import evaluate
from chronovisor.isa.operations import PURE
from chronovisor.isa.values import LaneFunction, Value


def known_value(v: Value, given: Callable[[Value], int | None], known: dict[int, int | None]) -> int | None:
    """A value that is known, or None.

    ``given`` says what operands and readings of the state are, as far as they are known. ``known`` has what
    was found before, by the ids of values.
    """
    if v.op in ("operand", "get"):
        return given(v)
    if v.op not in PURE or isinstance(v.detail, LaneFunction) or v.op in ("lane", "ieee"):
        return None
    arguments: list[int] = []
    for a in v.args:
        if id(a) not in known:
            known[id(a)] = known_value(a, given, known)
        value = known[id(a)]
        if value is None:
            return None
        arguments.append(value)
    return evaluate(v, arguments)
