"""What the human monitor's `x`, `xp` and `print` read and show: formats, expressions, and memory in lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

_TOKEN: Final = re.compile(r"\s*(\$\w+|0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*|'[^'\\]'|\S)", re.ASCII)
_FORMAT: Final = re.compile(r"/(\d*)(.*)", re.ASCII)
_MASK: Final = (1 << 64) - 1
_SIZES: Final = {"b": 1, "h": 2, "w": 4, "g": 8}
_LETTERS: Final = "xduoc"
"""Hexadecimal, with and without a sign, octal, a character."""
_WIDTHS: Final = {"o": (3, 6, 11, 22), "d": (3, 5, 10, 20), "u": (3, 5, 10, 20), "x": (4, 6, 10, 18)}
"""Characters of a value of 1, 2, 4 and 8 bytes in each format."""
_MOST: Final = 1 << 16
"""Values in one answer."""
_DIGITS: Final = 1000
_DEEPEST: Final = 64
"""Parentheses and signs in one another."""


class ExpressionError(Exception):
    """A format or an expression that makes no sense: a line for people, in QEMU's words if it has any."""


class ExtraneousError(ExpressionError):
    """Something follows the expression."""


@dataclass(frozen=True, slots=True)
class Format:
    """How values are shown."""

    count: int = 1
    letter: str = "x"
    size: int = 4
    """Bytes of a value."""

    @classmethod
    def parse(cls, text: str) -> Format:
        """Return what `/COUNT LETTER SIZE` says, each of which can be missing; ExpressionError."""
        match = _FORMAT.fullmatch(text)
        count, letter, size = match[1] if match else "", "x", 4
        for character in match[2] if match else "":
            if character in _LETTERS:
                letter = character
            elif character in _SIZES:
                size = _SIZES[character]
            elif character == "i":
                raise ExpressionError("there are no instructions in words here: gdb shows them")
            else:
                raise ExpressionError(f"invalid char in format: '{character}'")
        if len(count) > 5 or int(count or 1) > _MOST:
            raise ExpressionError(f"at most {_MOST} values are shown")
        return cls(int(count or 1), letter, size)

    def lines(self, address: int, data: bytes, order: Literal["little", "big"]) -> Iterator[str]:
        """Give the lines that show memory at an address. If there is less than was asked for, the last says
        so.
        """
        a_line = 8 if self.size == 1 else 16
        for at in range(0, self.count * self.size, a_line):
            here = (address + at) & _MASK
            piece = data[at : min(at + a_line, self.count * self.size)]
            wanted = min(a_line, self.count * self.size - at)
            if len(piece) < wanted:
                yield f"{here:016x}: Cannot access memory"
                return
            # Characters are bytes, as many as values of that size have.
            step = 1 if self.letter == "c" else self.size
            values = (int.from_bytes(piece[n : n + step], order) for n in range(0, wanted, step))
            yield f"{here:016x}: " + " ".join(self._padded(value) for value in values)

    def shown(self, value: int) -> str:
        """Return a value without regard to its size, as `print` shows it."""
        match self.letter:
            case "x":
                return f"{value:#x}" if value else "0"
            case "o":
                return f"0{value:o}" if value else "0"
            case "d":
                return str(value - (1 << 64) if value >> 63 else value)
            case "c":
                return _character(value)
        return str(value)

    def _padded(self, value: int) -> str:
        bits = 8 * self.size
        if self.letter == "c":
            return _character(value)
        width = _WIDTHS[self.letter][(1, 2, 4, 8).index(self.size)]
        match self.letter:
            case "x":
                return f"{value:#0{width}x}"
            case "o":
                return (f"0{value:o}" if value else "0").rjust(width)
            case "d":
                return str(value - (1 << bits) if value >> (bits - 1) else value).rjust(width)
        return str(value).rjust(width)


def evaluate(text: str, register: Callable[[str], int]) -> int:
    """Return the value of an expression, modulo 2^64; ExpressionError.

    There are numbers, `$NAME` for a register, parentheses, `+ - ~` before a value, and between values, from
    those that bind most to those that bind least, `* / %`, `& | ^`, `+ -`. `register` is given a name.
    """
    tokens = _TOKEN.findall(text)
    parser = _Parser(tokens, register)
    value = parser.sum()
    if parser.left:
        raise ExtraneousError("extraneous characters at the end of line")
    return value


class _Parser:
    def __init__(self, tokens: list[str], register: Callable[[str], int]) -> None:
        self.left = tokens[::-1]
        self._register = register
        self._depth = 0

    def sum(self) -> int:
        return self._chain("+-", lambda: self._chain("&|^", lambda: self._chain("*/%", self._value)))

    def _chain(self, operators: str, operand: Callable[[], int]) -> int:
        value = operand()
        while self.left and self.left[-1] in operators:
            value = _apply(self.left.pop(), value, operand()) & _MASK
        return value

    def _value(self) -> int:
        if not self.left:
            raise ExpressionError("unexpected end of expression")
        token = self.left.pop()
        if token[0] == "$":
            return self._register(token[1:]) & _MASK
        if token[0] in "0123456789":
            return _number(token)
        if len(token) == 3:
            return ord(token[1])
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ExpressionError(f"more than {_DEEPEST} parentheses and signs in one another")
        try:
            return self._compound(token) & _MASK
        finally:
            self._depth -= 1

    def _compound(self, token: str) -> int:
        match token:
            case "(":
                value = self.sum()
                if not self.left or self.left.pop() != ")":
                    raise ExpressionError("')' expected")
                return value
            case "+":
                return self._value()
            case "-":
                return -self._value()
            case "~":
                return ~self._value()
        raise ExpressionError(f"invalid char '{token}' in expression")


def _number(token: str) -> int:
    digits, base = (token[2:], 16) if token[:2] in ("0x", "0X") else (token, 8 if token[0] == "0" else 10)
    # Python converts so many digits only in time that grows faster than they do.
    value = int(digits, base) if len(digits) < _DIGITS else _MASK + 1
    if value > _MASK:
        raise ExpressionError("number too large")
    return value


def _apply(operator: str, one: int, other: int) -> int:
    match operator:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
        case "&":
            return one & other
        case "|":
            return one | other
        case "^":
            return one ^ other
    if not other:
        raise ExpressionError("division by zero")
    return one // other if operator == "/" else one % other


def _character(value: int) -> str:
    value &= 0xFF
    if chr(value) in "'\\":
        return f"'\\{chr(value)}'"
    named = {7: "\\a", 8: "\\b", 10: "\\n", 13: "\\r", 9: "\\t"}.get(value)
    plain = chr(value) if 32 <= value < 127 else f"\\x{value:02x}"
    return f"'{named or plain}'"
