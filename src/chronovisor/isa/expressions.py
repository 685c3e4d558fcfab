"""Expressions in assembly text: numbers, symbols, `.` (the place), `+ - * / % << >> & ^ | ~`, `symbol@ha`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping

#: `value@part`: 16 bits of a value, for instructions that build it from halves. The `a` in `ha` says
#: that the half is made for an addition of the sign-extended lower half.
PARTS: dict[str, Callable[[int], int]] = {
    "l": lambda value: value,
    "h": lambda value: value >> 16,
    "ha": lambda value: (value + 0x8000) >> 16,
    "higher": lambda value: value >> 32,
    "highera": lambda value: (value + 0x8000) >> 32,
    "highest": lambda value: value >> 48,
    "highesta": lambda value: (value + 0x8000) >> 48,
}

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.BitOr: operator.or_,
}
_UNARY: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}

_HERE = re.compile(r"(?<![\w.])\.(?![\w.])")
_HERE_NAME = "_here_"

#: Longest shift: a typing error must not fill the memory.
_MOST_BITS = 128


class Half(int):
    """16 bits of a value: fits a 16-bit field whether or not that is signed."""


def evaluate(text: str, symbols: Mapping[str, int], here: int) -> int:
    """The value of an expression at address ``here``; ValueError says what is wrong with it."""
    try:
        tree = ast.parse(_HERE.sub(_HERE_NAME, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text.strip()!r} is not an expression") from None

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                return number
            case ast.Name(id=name):
                if name == _HERE_NAME:
                    return here
                if name in symbols:
                    return symbols[name]
                raise ValueError(f"{name!r} is not defined")
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return _UNARY[type(op)](value(operand))
            case ast.BinOp(left=left, op=ast.MatMult(), right=ast.Name(id=part)) if part in PARTS:
                return Half(PARTS[part](value(left)) & 0xFFFF)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                a, b = value(left), value(right)
                if isinstance(op, ast.LShift | ast.RShift) and not 0 <= b <= _MOST_BITS:
                    raise ValueError(f"{text.strip()!r} shifts by {b}")
                if isinstance(op, ast.Div | ast.Mod) and b == 0:
                    raise ValueError(f"{text.strip()!r} divides by zero")
                return _BINARY[type(op)](a, b)
        raise ValueError(f"{text.strip()!r} is not an expression of numbers and symbols")

    return value(tree)
