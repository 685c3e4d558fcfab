"""z3's terms as Python functions over ints: put in the numbers of a case thousands of times, fast.

An array is a dict of the bytes stored, over what is there from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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


#: Those with numbers in their names.
_NUMBERED = (z3.Z3_OP_EXTRACT, z3.Z3_OP_ROTATE_LEFT, z3.Z3_OP_ROTATE_RIGHT)


class _Value(NamedTuple):
    """What is known of a term that was written."""

    name: str
    width: int
    """In bits; 0 unless it is a bit-vector."""


class _Writer:
    """Writes terms. It asks z3's library itself, because the Python objects around terms take much time."""

    def __init__(self, context: z3.Context) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, str] = {}
        self._context = context
        self._library = context.ref()
        self._written: dict[int, _Value] = {}

    def write(self, term: z3.ExprRef) -> str:
        """The name of a term's value, its lines written before."""
        library, written = self._library, self._written
        arguments: dict[int, list[tuple[int, Any]]] = {}
        pending = [(term.get_id(), term.as_ast())]
        while pending:
            number, ast = pending[-1]
            if number in written:
                pending.pop()
                continue
            known = arguments.get(number)
            if known is None:
                known = arguments[number] = self._arguments(ast)
                missing = [one for one in known if one[0] not in written]
                if missing:
                    pending += missing
                    continue
            pending.pop()
            sort = z3.Z3_get_sort(library, ast)
            is_vector = z3.Z3_get_sort_kind(library, sort) == z3.Z3_BV_SORT
            width = z3.Z3_get_bv_sort_size(library, sort) if is_vector else 0
            written[number] = _Value(self._one(ast, width, [written[one] for one, _ in known]), width)
        return written[term.get_id()].name

    def _arguments(self, ast: Any) -> list[tuple[int, Any]]:
        """A term's arguments, each with its number."""
        library = self._library
        if z3.Z3_get_ast_kind(library, ast) != z3.Z3_APP_AST:
            return []
        found = [
            z3.Z3_get_app_arg(library, ast, place) for place in range(z3.Z3_get_app_num_args(library, ast))
        ]
        return [(z3.Z3_get_ast_id(library, one), one) for one in found]

    def _one(self, ast: Any, width: int, arguments: list[_Value]) -> str:
        library = self._library
        if z3.Z3_get_ast_kind(library, ast) == z3.Z3_NUMERAL_AST:
            return str(z3.Z3_get_numeral_string(library, ast))
        declared = z3.Z3_get_app_decl(library, ast)
        kind, name = z3.Z3_get_decl_kind(library, declared), f"t{len(self._written)}"
        if kind == z3.Z3_OP_UNINTERPRETED:
            symbol = z3.Z3_get_decl_name(library, declared)
            self.constants[name] = z3.Z3_get_symbol_string(library, symbol)
            return name
        numbers = z3.FuncDeclRef(declared, self._context).params() if kind in _NUMBERED else []
        self.lines.append(f"{name} = {_source(kind, width, numbers, arguments)}")
        return name


def _source(kind: int, width: int, numbers: Sequence[int], arguments: Sequence[_Value]) -> str:
    names = [argument.name for argument in arguments]
    if kind == z3.Z3_OP_CONCAT:
        parts, shift = [], 0
        for argument in reversed(arguments):
            parts.append(f"{argument.name} << {shift}")
            shift += argument.width
        return " | ".join(parts)
    if kind == z3.Z3_OP_DISTINCT:
        return f"len({{{', '.join(names)}}}) == {len(names)}"
    if kind in _JOINED:
        joined = _JOINED[kind].join(names)
        return f"({joined}) & {(1 << width) - 1}" if kind in (z3.Z3_OP_BADD, z3.Z3_OP_BMUL) else joined
    return _WRITTEN[kind].format(
        **dict(zip("abc", names, strict=False)),
        **dict(zip("pq", numbers, strict=False)),
        w=width,
        m=(1 << width) - 1,
        v=arguments[0].width if arguments else width,
    )


def function_of(
    terms: Sequence[z3.ExprRef], byte: Callable[[int], int]
) -> Callable[[Mapping[str, Any]], list[Any]]:
    """A function of the constants' values, by their names, that gives those of the terms.

    `byte` says what memory holds at an address.
    """
    writer = _Writer(terms[0].ctx)
    names = [writer.write(term) for term in terms]
    given = [f"{name} = values[{constant!r}]" for name, constant in writer.constants.items()]
    body = "\n    ".join([*given, *writer.lines, f"return [{', '.join(names)}]"])
    scope: dict[str, Any] = {**_HELPERS, "byte": byte}
    exec(f"def function(values):\n    {body}", scope)
    made: Callable[[Mapping[str, Any]], list[Any]] = scope["function"]
    return made
