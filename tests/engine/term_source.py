"""z3's terms as Python functions over ints: put in the numbers of a case thousands of times, fast.

An array is a dict of the bytes stored, over what is there from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import z3


def _signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> (width - 1) else value


def _udiv(a: int, b: int, width: int) -> int:
    return a // b if b else (1 << width) - 1


def _urem(a: int, b: int, width: int) -> int:
    return a % b if b else a


def _sdiv(a: int, b: int, width: int) -> int:
    x, y = _signed(a, width), _signed(b, width)
    if not y:
        return 1 if x < 0 else (1 << width) - 1
    return (abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)) & ((1 << width) - 1)


def _srem(a: int, b: int, width: int) -> int:
    x, y = _signed(a, width), _signed(b, width)
    if not y:
        return a
    return (abs(x) % abs(y) * (-1 if x < 0 else 1)) & ((1 << width) - 1)


def _rotl(a: int, b: int, width: int) -> int:
    b %= width
    return ((a << b) | (a >> (width - b))) & ((1 << width) - 1)


def _ashr(a: int, b: int, width: int) -> int:
    return (_signed(a, width) >> min(b, width)) & ((1 << width) - 1)


_HELPERS = {
    "signed": _signed,
    "udiv": _udiv,
    "urem": _urem,
    "sdiv": _sdiv,
    "srem": _srem,
    "rotl": _rotl,
    "ashr": _ashr,
}

#: By the kind of an application: how it is written. `a`, `b`, `c` are its arguments, `w` its width in bits,
#: `v` its first argument's, `m` a mask of `w` ones; `p` and `q` the numbers in its name.
_WRITTEN = {
    z3.Z3_OP_TRUE: "True",
    z3.Z3_OP_FALSE: "False",
    z3.Z3_OP_NOT: "not {a}",
    z3.Z3_OP_XOR: "{a} != {b}",
    z3.Z3_OP_IMPLIES: "not {a} or {b}",
    z3.Z3_OP_EQ: "{a} == {b}",
    z3.Z3_OP_ITE: "{b} if {a} else {c}",
    z3.Z3_OP_BNOT: "{a} ^ {m}",
    z3.Z3_OP_BNEG: "-{a} & {m}",
    z3.Z3_OP_BSUB: "({a} - {b}) & {m}",
    z3.Z3_OP_BSHL: "{a} << {b} & {m} if {b} < {w} else 0",
    z3.Z3_OP_BLSHR: "{a} >> min({b}, {w})",
    z3.Z3_OP_BASHR: "ashr({a}, {b}, {w})",
    z3.Z3_OP_EXTRACT: "{a} >> {q} & {m}",
    z3.Z3_OP_ZERO_EXT: "{a}",
    z3.Z3_OP_SIGN_EXT: "signed({a}, {v}) & {m}",
    z3.Z3_OP_ULEQ: "{a} <= {b}",
    z3.Z3_OP_ULT: "{a} < {b}",
    z3.Z3_OP_UGEQ: "{a} >= {b}",
    z3.Z3_OP_UGT: "{a} > {b}",
    z3.Z3_OP_SLEQ: "signed({a}, {v}) <= signed({b}, {v})",
    z3.Z3_OP_SLT: "signed({a}, {v}) < signed({b}, {v})",
    z3.Z3_OP_SGEQ: "signed({a}, {v}) >= signed({b}, {v})",
    z3.Z3_OP_SGT: "signed({a}, {v}) > signed({b}, {v})",
    z3.Z3_OP_BUDIV: "udiv({a}, {b}, {w})",
    z3.Z3_OP_BUDIV_I: "udiv({a}, {b}, {w})",
    z3.Z3_OP_BUREM: "urem({a}, {b}, {w})",
    z3.Z3_OP_BUREM_I: "urem({a}, {b}, {w})",
    z3.Z3_OP_BSDIV: "sdiv({a}, {b}, {w})",
    z3.Z3_OP_BSDIV_I: "sdiv({a}, {b}, {w})",
    z3.Z3_OP_BSREM: "srem({a}, {b}, {w})",
    z3.Z3_OP_BSREM_I: "srem({a}, {b}, {w})",
    z3.Z3_OP_ROTATE_LEFT: "rotl({a}, {p}, {w})",
    z3.Z3_OP_EXT_ROTATE_LEFT: "rotl({a}, {b}, {w})",
    z3.Z3_OP_ROTATE_RIGHT: "rotl({a}, {w} - {p}, {w})",
    z3.Z3_OP_EXT_ROTATE_RIGHT: "rotl({a}, {w} - {b} % {w}, {w})",
    z3.Z3_OP_SELECT: "{a}[{b}] if {b} in {a} else byte({b})",
    z3.Z3_OP_STORE: "{{**{a}, {b}: {c}}}",
}

#: Those with any number of arguments: what stands between them.
_JOINED = {
    z3.Z3_OP_AND: " and ",
    z3.Z3_OP_OR: " or ",
    z3.Z3_OP_BAND: " & ",
    z3.Z3_OP_BOR: " | ",
    z3.Z3_OP_BXOR: " ^ ",
    z3.Z3_OP_BADD: " + ",
    z3.Z3_OP_BMUL: " * ",
}


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, str] = {}
        self._names: dict[int, str] = {}

    def write(self, term: z3.ExprRef) -> str:
        """The name of a term's value, its lines written before."""
        pending = [term]
        while pending:
            top = pending[-1]
            if top.get_id() in self._names:
                pending.pop()
                continue
            missing = [x for x in top.children() if x.get_id() not in self._names]
            if missing:
                pending += missing
                continue
            self._names[pending.pop().get_id()] = self._one(top)
        return self._names[term.get_id()]

    def _one(self, term: z3.ExprRef) -> str:
        if z3.is_bv_value(term):
            return str(term.as_long())
        kind, name = term.decl().kind(), f"t{len(self._names)}"
        arguments = [self._names[x.get_id()] for x in term.children()]
        if kind == z3.Z3_OP_UNINTERPRETED:
            self.constants[name] = term.decl().name()
            return name
        self.lines.append(f"{name} = {self._written(term, kind, arguments)}")
        return name

    def _written(self, term: z3.ExprRef, kind: int, arguments: list[str]) -> str:
        width = term.size() if z3.is_bv(term) else 0
        if kind == z3.Z3_OP_CONCAT:
            parts, shift = [], 0
            for argument, name in reversed(list(zip(term.children(), arguments, strict=True))):
                parts.append(f"{name} << {shift}")
                shift += argument.size()
            return " | ".join(parts)
        if kind == z3.Z3_OP_DISTINCT:
            return f"len({{{', '.join(arguments)}}}) == {len(arguments)}"
        if kind in _JOINED:
            joined = _JOINED[kind].join(arguments)
            return f"({joined}) & {(1 << width) - 1}" if kind in (z3.Z3_OP_BADD, z3.Z3_OP_BMUL) else joined
        numbers = dict(zip("pq", term.decl().params(), strict=False))
        first = term.arg(0) if arguments else term
        return _WRITTEN[kind].format(
            **dict(zip("abc", arguments, strict=False)),
            **numbers,
            w=width,
            m=(1 << width) - 1,
            v=first.size() if z3.is_bv(first) else 0,
        )


def function_of(
    terms: Sequence[z3.ExprRef], byte: Callable[[int], int]
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """A function of the constants' values, by their names, that gives those of the terms.

    `byte` says what memory holds at an address.
    """
    writer = _Writer()
    names = [writer.write(term) for term in terms]
    given = [f"{name} = values[{constant!r}]" for name, constant in writer.constants.items()]
    body = "\n    ".join([*given, *writer.lines, f"return [{', '.join(names)}]"])
    scope: dict[str, Any] = {**_HELPERS, "byte": byte}
    exec(f"def function(values):\n    {body}", scope)
    made: Callable[[Mapping[str, Any]], list[Any]] = scope["function"]
    return made
